#!/usr/bin/env python3
"""What a conversion takes of a file system that can share extents.

    cargo build --release -p drylab-cli
    truncate -s 6G xfs.img && mkfs.xfs -q -m reflink=1 xfs.img && mkdir -p xfs && sudo mount -o loop xfs.img xfs
    python3 sim/cli/benches/reflink.py target/release/drylab xfs guest.raw

Copies the guest (a sparse raw disk; convert.py --keep makes one) to the folder and converts it there by turns with cp and
qemu-img. Shown are medians of wall time and CPU and how many MiB less the file system has free afterwards; every output
is compared with the source once, by qemu-img.
"""
import argparse, os, statistics, subprocess, time

FORMATS = [("raw", "raw", []), ("vmdk", "vmdk", ["--subformat", "monolithicFlat"]), ("qcow2", "qcow2", []),
           ("vdi", "vdi", []), ("vhdx", "vhdx", [])]


def used(folder):
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize >> 20


def remove(folder):
    for name in os.listdir(folder):
        if name.startswith("out"):
            os.unlink(os.path.join(folder, name))


def run(command, folder):
    """Wall, CPU, MiB taken."""
    remove(folder)
    os.sync()
    before, start = used(folder), time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    if status:
        raise SystemExit(f"{command}: status {status}")
    os.sync()
    return wall, usage.ru_utime + usage.ru_stime, used(folder) - before


def row(args, name, command, source=None, out=None, kind="raw"):
    rows = [run(command, args.folder) for _ in range(args.reps)]
    if out:
        subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", kind, source, out], check=True,
                       stdout=subprocess.DEVNULL)
    wall, cpu, taken = (statistics.median(row[number] for row in rows) for number in range(3))
    print(f"| {name} | {wall:.2f} | {cpu:.2f} | {taken} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", help="on a file system with reflinks, of 6 GiB or more")
    parser.add_argument("guest")
    parser.add_argument("--reps", type=int, default=5)
    args = parser.parse_args()
    raw, out = os.path.join(args.folder, "guest.raw"), os.path.join(args.folder, "out.img")
    subprocess.run(["cp", "--sparse=always", args.guest, raw], check=True)
    print("| command | wall s | cpu s | MiB taken |\n|---|---|---|---|")
    row(args, "cp --reflink=always", ["cp", "--reflink=always", raw, out])
    row(args, "qemu-img raw to raw", ["qemu-img", "convert", "-f", "raw", "-O", "raw", raw, out])
    row(args, "qemu-img -C raw to raw", ["qemu-img", "convert", "-C", "-f", "raw", "-O", "raw", raw, out])
    row(args, "qemu-img raw to qcow2", ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out])
    for to, kind, options in FORMATS:
        command = [args.program, "image", "convert", raw, out, "--to", to, *options]
        row(args, f"drylab raw to {to}", command, raw, out, kind)
    for to, _, options in FORMATS[1:]:
        source = os.path.join(args.folder, "source." + to)
        made = [args.program, "image", "convert", raw, source, "--to", to, *options]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        command = [args.program, "image", "convert", source, out, "--to", "raw", "--allow-beneath", args.folder]
        row(args, f"drylab {to} to raw", command, raw, out)
        os.unlink(source)
    remove(args.folder)


if __name__ == "__main__":
    main()
