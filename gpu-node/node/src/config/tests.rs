use super::*;

fn resolve(toml: &str, flags: Flags) -> Result<Config, ConfigError> {
    let flags = Flags { node_id: Some("test".parse().unwrap()), ..flags };
    Config::resolve(toml::from_str(toml).unwrap(), flags)
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = resolve("", Flags::default()).unwrap();
    assert_eq!(config.region.as_str(), "local");
    assert_eq!(config.channels, [Channel::Stable]);
    assert_eq!(config.work.concurrency.get(), 3);
    assert_eq!(config.work.ack_wait, Duration::from_secs(30));
    assert!(config.admin.ip().is_loopback());
    assert_eq!((config.work.look_ahead.get(), config.memory.safety_margin), (32, 0.8));
    assert!(config.retention.records > config.retention.results);
}

#[test]
fn flags_win_over_the_file() {
    let toml = r#"
        region = "eu-1"
        channels = ["stable", "canary"]
        [nats]
        urls = ["nats://a:4222"]
        [work]
        ack_wait = "2s"
        concurrency = 1
        [retention]
        results_bytes_max = "20GiB"
    "#;
    let flags = Flags {
        region: Some("eu-2".parse().unwrap()),
        nats: NatsFlags { urls: vec!["nats://b:4222".to_owned()], credentials: None },
        ..Flags::default()
    };
    let config = resolve(toml, flags).unwrap();
    assert_eq!(config.region.as_str(), "eu-2");
    assert_eq!(config.nats.urls, ["nats://b:4222"]);
    assert_eq!(config.channels, [Channel::Stable, Channel::Canary]);
    assert_eq!(config.work.ack_wait, Duration::from_secs(2));
    assert_eq!(config.retention.results_bytes_max, Some(20 << 30));
}

#[test]
fn unknown_keys_are_errors() {
    for toml in ["regoin = 'local'", "[work]\nconcurency = 3", "[nats]\nurl = 'x'", "[work]\nack_wait = '30'"]
    {
        assert!(toml::from_str::<File>(toml).is_err(), "{toml}");
    }
}

#[test]
fn values_that_make_no_sense_name_their_key() {
    let cases = [
        ("channels = []", "channels"),
        ("channels = ['stable', 'stable']", "channels"),
        ("[nats]\nurls = []", "nats.urls"),
        ("[work]\nack_wait = '10ms'", "work.ack_wait"),
        ("[work]\nattempts_max = 0", "work.attempts_max"),
        ("[work]\nqueue_messages_max = 0", "work.queue_messages_max"),
        ("[work]\njob_limit = '1ms'", "work.job_limit"),
        ("[work]\nstall_limit = '1ms'", "work.stall_limit"),
        ("[nats]\nmonitor = '127.0.0.1:8222'", "nats.monitor"),
        ("[nats]\nmonitor = 'https://nats:8222'", "nats.monitor"),
        ("[memory]\nsafety_margin = 1.5", "memory.safety_margin"),
        ("[memory]\nbudget = '0'", "memory.budget"),
        ("device = 'tpu'", "device"),
        ("precision = 'fp8'", "precision"),
        ("offload = 'sometimes'", "offload"),
        ("[retention]\nresults = '1s'", "retention.results"),
    ];
    for (toml, key) in cases {
        let error = resolve(toml, Flags::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Value { key: named, .. } if named == key), "{toml}: {error}");
    }
}
