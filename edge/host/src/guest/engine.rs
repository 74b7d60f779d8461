//! The wasmtime engine: its configuration and the clock that interrupts busy guests.

use std::time::Duration;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How often a running guest yields to other tasks, and the unit of its busy limit.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A component from `wasm32-wasip2` has 3 core instances (module, shim, fix-ups); one to spare.
const CORE_INSTANCES_PER_COMPONENT: u32 = 4;
/// Memory that a slot keeps between instances, so that a fresh one need not fault it in again.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// Room for instances; what asks for more is refused and answered with "busy".
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolLimits {
    pub(crate) instances: u32,
    pub(crate) memory_bytes: usize,
}

/// Creates the engine and starts its clock, which ends with the engine.
pub(crate) fn start(pool: PoolLimits) -> anyhow::Result<Engine> {
    let core_instances = pool.instances * CORE_INSTANCES_PER_COMPONENT;
    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .total_component_instances(pool.instances)
        .total_core_instances(core_instances)
        .total_memories(pool.instances)
        .total_tables(core_instances)
        .total_stacks(core_instances)
        .max_memory_size(pool.memory_bytes)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
    let engine = Engine::new(&config)?;

    let weak = engine.weak();
    std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    })?;
    Ok(engine)
}
