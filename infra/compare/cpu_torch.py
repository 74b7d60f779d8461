"""Makes an installed `torch` wheel importable on a machine without the CUDA libraries.

The published wheel is linked to CUDA libraries of several gigabytes, which a CPU comparison never calls. In the
place of each goes an empty library of the same name that defines the symbols the wheel's Python binding asks for;
the two that `libtorch_cpu.so` really uses come from the libtorch that this repository fetched.

usage: cpu_torch.py SITE_PACKAGES LIBTORCH
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

# Linked by the Python binding, absent here; with how their symbols begin.
ABSENT = {"libcudnn.so.9": "cudnn", "libcufile.so.0": "cuFile"}
# Present, but in need of absent ones: the first takes the place of both.
REPLACED = ["libtorch_cuda.so", "libtorch_nvshmem.so"]
FETCHED = ["libcudart.so.13", "libcupti.so.13"]


def symbols(library, kind):
    """Names in a library's dynamic table, and whether each is code."""
    output = subprocess.run(["nm", "-D", kind, library], capture_output=True, text=True, check=True).stdout
    fields = (line.split() for line in output.splitlines() if line.split())
    return {field[-1].split("@")[0]: field[-2] in "TWi" for field in fields}


def stub(path, names, versioned=False):
    """A library that defines `names`, functions that give zeroed memory and zeroed data, under a version of its own
    name if `versioned`. A few functions run at import, to register what is never used."""
    lines = [".bss", ".balign 4096", "zeroes: .zero 4096", ".text"]
    for name in sorted(name for name, is_code in names.items() if is_code):
        lines += [f".globl {name}", f".type {name}, @function", f"{name}: lea zeroes(%rip), %rax", "ret"]
    lines.append(".data")
    for name in sorted(name for name, is_code in names.items() if not is_code):
        lines += [f".globl {name}", ".balign 64", f"{name}:"]
        if name.startswith("_ZTI"):
            # Run-time type information, which is looked up by its name.
            text = name.removeprefix("_ZTI")
            lines += [".quad _ZTVN10__cxxabiv117__class_type_infoE+16", ".quad 1f", f'1: .asciz "{text}"']
        lines.append(".zero 64")
    lines.append('.section .note.GNU-stack,"",@progbits')
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "stub.s"
        source.write_text("\n".join(lines) + "\n")
        made = pathlib.Path(folder) / path.name
        version = ["-Wl,--default-symver"] if versioned else []
        subprocess.run(["cc", "-shared", f"-Wl,-soname,{path.name}", *version, "-o", made, source, "-lstdc++"], check=True)
        shutil.move(made, path)


def main():
    site_packages, libtorch = map(pathlib.Path, sys.argv[1:])
    lib = site_packages / "torch" / "lib"
    wanted = symbols(lib / "libtorch_python.so", "--undefined-only")
    for name in FETCHED:
        target = lib / name
        if not target.exists():
            shutil.copy(libtorch / "lib" / name, target)
    replaced = {}
    for name in REPLACED:
        path, original = lib / name, lib / f"{name}.original"
        if not original.exists():
            path.rename(original)
        replaced |= symbols(original, "--defined-only")
    stub(lib / REPLACED[0], {name: is_code for name, is_code in replaced.items() if name in wanted})
    for name, prefix in ABSENT.items():
        stub(lib / name, {symbol: True for symbol in wanted if symbol.startswith(prefix)}, prefix == "cudnn")


if __name__ == "__main__":
    main()
