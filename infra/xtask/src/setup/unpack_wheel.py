"""Unpack the parts of a wheel that libtorch needs: unpack_wheel.py WHEEL DEST LIBRARY...

Headers go to DEST/include, the named libraries to DEST/lib. Prints the number of
bytes written so far, a line each few megabytes, for the progress bar.
"""
import os
import sys
import zipfile

HEADERS = "torch/include/"
CHUNK = 1 << 20
REPORT_EACH = 4 << 20


def destination(name, libraries):
    if name.endswith("/"):
        return None
    if name.startswith(HEADERS):
        return os.path.join("include", name[len(HEADERS):])
    if os.path.basename(name) in libraries:
        return os.path.join("lib", os.path.basename(name))
    return None


def main(wheel, dest, *libraries):
    written, reported = 0, 0
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            relative = destination(member.filename, libraries)
            if relative is None:
                continue
            path = os.path.join(dest, relative)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    written += len(chunk)
                    if written - reported >= REPORT_EACH:
                        reported = written
                        print(written, flush=True)
    print(written, flush=True)


main(*sys.argv[1:])
