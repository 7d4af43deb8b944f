#!/usr/bin/env python3
"""Conversion measured side by side with qemu-img and cp, in one run.

    cargo build --release -p drylab-cli
    python3 sim/cli/benches/convert.py target/release/drylab [--reps 5] [--only NAME] [--growth | --limit]
        [--folder DIR]

The guest is an ext4 file system of real files of this machine (about 500 MiB) in a disk of 2 GiB with a partition table,
made with mke2fs. It and all outputs lie on a memory file system, so that neither medium nor page cache is measured.
For each pair the three programs take turns: cp of the same allocated bytes, qemu-img with its usual and with its best
setting (-m 16 -W), drylab. User and system time are those of the finished child, peak memory is the child's, too (what
is below that of this program cannot be seen). Shown are medians of CPU and wall time, the medians of the ratios of each
turn, the goal, and whether it is reached. Every output is compared with the source once, by qemu-img.
"""
import argparse, os, random, shutil, statistics, subprocess, sys, tempfile, time

FOLDERS = ["/etc", "/usr/sbin", "/usr/include", "/usr/bin", "/usr/share", "/usr/lib"]


def run(command, out=None):
    """Wall, CPU, peak MiB of a command; a file it is to write is removed first."""
    if out and os.path.exists(out):
        os.unlink(out)
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    complaint = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command}: {complaint.decode()}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def tree(folder, wanted):
    """Copies real files until there are `wanted` bytes, of no folder more than half of what is left."""
    have = 0
    for top in FOLDERS:
        share = (wanted - have) // (1 if top == FOLDERS[-1] else 2)
        taken = 0
        for place, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(place, name)
                if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                    continue
                size = os.path.getsize(path)
                if size > 32 << 20 or taken + size > share:
                    continue
                target = folder + path
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(path, target)
                taken += size
            if taken > share * 99 // 100:
                break
        have += taken


def guest(path, folder):
    """A disk of 2 GiB with one partition, an ext4 of real files."""
    files = os.path.join(folder, "tree")
    tree(files, 470 << 20)
    with open(path, "wb") as disk:
        disk.truncate(2 << 30)
    subprocess.run(["sfdisk", "-q", path], input=b"label: dos\n2048,,L,*\n", check=True)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "offset=1048576,lazy_itable_init=1", "-d", files, path, "2096128k"],
        check=True,
    )
    shutil.rmtree(files)


def allocated(path):
    return os.stat(path).st_blocks * 512


def scattered(path, size, source, want):
    """`want` bytes of the guest in extents of 64 KiB to 1 MiB, at places that a fixed seed chooses."""
    draw = random.Random(1)
    used, done = set(), 0
    extents, at = [], 0
    with open(source, "rb") as src, open(path, "wb") as out:
        out.truncate(size)
        while True:
            try:
                data = os.lseek(src.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(src.fileno(), data, os.SEEK_HOLE)
            if at - data >= 1 << 20:
                extents.append((data, at))
        while done < want:
            pages = draw.randint(1, 16)
            slot = draw.randrange(0, (size >> 16) - pages)
            if any(s in used for s in range(slot, slot + pages)):
                continue
            used.update(range(slot, slot + pages))
            first, last = extents[draw.randrange(len(extents))]
            place = first + (draw.randrange(0, max(1, last - first - (pages << 16))) & ~4095)
            os.pwrite(out.fileno(), os.pread(src.fileno(), min(pages << 16, last - place), place), slot << 16)
            done += pages << 16


def ours(program, source, out, *options):
    return [program, "image", "convert", source, out, *options]


def qemu(source, kind, out, to, *options):
    return ["qemu-img", "convert", "-f", kind, "-O", to, *options, source, out]


BEST = ["-m", "16", "-W"]
STREAM = ["-o", "subformat=streamOptimized"]
VPC = ["-o", "subformat=dynamic,force_size=on"]
ZSTD = ["-c", "-o", "compression_type=zstd"]
# name; source; its format; format for qemu-img and its options; our options; goals CPU and wall; whether bytes are as
# they are on both sides, so that cp is the measure.
PAIRS = [
    ("raw -> raw", "raw", "raw", "raw", [], ["--to", "raw"], 1.1, 1.2, True),
    ("raw -> qcow2", "raw", "raw", "qcow2", [], ["--to", "qcow2"], 1.1, 1.2, True),
    ("qcow2 -> raw", "qcow2", "qcow2", "raw", [], ["--to", "raw"], 1.1, 1.2, True),
    ("qcow2 -> qcow2", "qcow2", "qcow2", "qcow2", [], ["--to", "qcow2"], 1.1, 1.2, True),
    ("raw -> VDI", "raw", "raw", "vdi", [], ["--to", "vdi"], 1.1, 1.2, True),
    ("VDI -> raw", "vdi", "vdi", "raw", [], ["--to", "raw"], 1.1, 1.2, True),
    ("raw -> VMDK sparse", "raw", "raw", "vmdk", [], ["--to", "vmdk"], 2.2, 2.8, True),
    ("VMDK sparse -> raw", "vmdk", "vmdk", "raw", [], ["--to", "raw"], 1.5, 1.8, True),
    ("VMDK sparse -> qcow2", "vmdk", "vmdk", "qcow2", [], ["--to", "qcow2"], 1.5, 1.8, True),
    ("raw -> VHD", "raw", "raw", "vpc", VPC, ["--to", "vhd"], 1.2, 1.3, True),
    ("VHD -> raw", "vpc", "vpc", "raw", [], ["--to", "raw"], 1.2, 1.3, True),
    ("raw -> VHDX", "raw", "raw", "vhdx", [], ["--to", "vhdx"], 1.2, 1.3, True),
    ("VHDX -> raw", "vhdx", "vhdx", "raw", [], ["--to", "raw"], 1.2, 1.3, True),
    ("qcow2 -> VHDX", "qcow2", "qcow2", "vhdx", [], ["--to", "vhdx"], 1.2, 1.3, True),
    ("raw -> stream", "raw", "raw", "vmdk", STREAM, ["--to", "vmdk", "--subformat", "streamOptimized"], 2.6, 5, False),
    ("raw -> stream, fast", "raw", "raw", "vmdk", STREAM,
     ["--to", "vmdk", "--subformat", "streamOptimized", "--level", "fast"], 4.5, 8, False),
    ("stream -> raw", "stream", "vmdk", "raw", [], ["--to", "raw"], 2.2, 3.5, False),
    ("raw -> qcow2 zlib", "raw", "raw", "qcow2", ["-c"], ["--to", "qcow2", "--compress", "zlib"], 2, 2.2, False),
    ("qcow2 zlib -> raw", "zlib", "qcow2", "raw", [], ["--to", "raw"], 2, 2.5, False),
    ("raw -> qcow2 zstd", "raw", "raw", "qcow2", ZSTD, ["--to", "qcow2", "--compress", "zstd"], 1.5, 2, False),
    ("qcow2 zstd -> raw", "zstd", "qcow2", "raw", [], ["--to", "raw"], 1.5, 1.8, False),
]
MADE = {
    "qcow2": ("qcow2", []), "vdi": ("vdi", []), "vmdk": ("vmdk", []), "vpc": ("vpc", VPC), "vhdx": ("vhdx", []),
    "stream": ("vmdk", STREAM), "zlib": ("qcow2", ["-c"]), "zstd": ("qcow2", ZSTD),
}


def writes(program, to):
    """Whether the program knows the format."""
    said = subprocess.run([program, "image", "convert", "--help"], capture_output=True, text=True).stdout
    return f"- {to}:" in said or f" {to}," in said or f"{to}]" in said


def reads(program, source, out):
    """Whether the program knows the format of a file."""
    done = subprocess.run(ours(program, source, out, "--to", "raw", "--force"), capture_output=True, text=True)
    if done.returncode and "unsupported" not in done.stderr:
        sys.exit(done.stderr)
    return done.returncode == 0


def median(list_):
    return statistics.median(list_)


def quartiles(list_):
    if len(list_) < 4:
        return f"{min(list_):.2f}-{max(list_):.2f}"
    q = statistics.quantiles(list_, n=4)
    return f"{q[0]:.2f}-{q[2]:.2f}"


def verdict(value, goal):
    return f"{value:.2f} (>= {goal}) {'yes' if value >= goal else 'NO'}"


def pairs(args, folder, raw):
    out, ref = os.path.join(folder, "out"), os.path.join(folder, "ref")
    print("| pair | n | cp cpu | qemu cpu | ours cpu | qemu wall (best) | ours wall | cpu ratio, goal | quartiles "
          "| wall ratio, goal | quartiles | ours / cp cpu | peak MiB | size / qemu's |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for number, (name, kind, form, to, options, mine, goal_cpu, goal_wall, plain) in enumerate(PAIRS):
        if args.only and not any(word in name for word in args.only):
            continue
        source = raw if kind == "raw" else os.path.join(folder, "source." + kind)
        if not os.path.exists(source):
            made, how = MADE[kind]
            run(qemu(raw, "raw", source, made, *how))
        if not writes(args.program, mine[1]) or not reads(args.program, source, out):
            print(f"| {name} | - | not read or not written yet |")
            continue
        slow = not plain and "->" in name and not name.endswith("-> raw")
        reps = args.reps
        rows, sizes = [], [0, 0]
        for turn in range(reps):
            # cp copies the disk's bytes as a raw file: as many as are allocated.
            cp = run(["cp", raw, ref], ref)
            os.unlink(ref)
            best = run(qemu(source, form, out, to, *BEST, *options), out)
            sizes[0] = os.stat(out).st_size
            usual = best if slow else run(qemu(source, form, out, to, *options), out)
            we = run(ours(args.program, source, out, *mine), out)
            sizes[1] = os.stat(out).st_size
            if turn == 0:
                check = to if to != "raw" else "raw"
                subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", check, raw, out], check=True,
                               stdout=subprocess.DEVNULL)
            rows.append((cp, best, usual, we))
        os.unlink(out)
        if kind != "raw" and kind not in [later[1] for later in PAIRS[number + 1:]]:
            os.unlink(source)
        cpu = [min(best[1], usual[1]) / we[1] for _, best, usual, we in rows]
        wall = [min(best[0], usual[0]) / we[0] for _, best, usual, we in rows]
        copy = [we[1] / cp[1] for cp, _, _, we in rows]
        bound = "" if not plain else (" yes" if median(copy) <= 1.15 else " NO")
        size = f"{sizes[1] / sizes[0]:.3f}"
        print(f"| {name} | {reps} | {median([r[0][1] for r in rows]):.2f} "
              f"| {median([min(r[1][1], r[2][1]) for r in rows]):.2f} | {median([r[3][1] for r in rows]):.2f} "
              f"| {median([min(r[1][0], r[2][0]) for r in rows]):.2f} | {median([r[3][0] for r in rows]):.2f} "
              f"| {verdict(median(cpu), goal_cpu)} | {quartiles(cpu)} | {verdict(median(wall), goal_wall)} "
              f"| {quartiles(wall)} | {median(copy):.2f}{bound} | {max(r[3][2] for r in rows):.0f} | {size} |",
              flush=True)


def growth(args, folder, raw):
    """CPU per allocated MiB of the same data scattered over 8 GiB, 100 GiB and 10 TiB."""
    out = os.path.join(folder, "out")
    sizes = [("8 GiB", 8 << 30), ("100 GiB", 100 << 30), ("10 TiB", 10 << 40)]
    print("\n| to | 8 GiB: cpu s | 100 GiB | 10 TiB | 100 GiB / 8 GiB (<= 1.3) | 10 TiB / 100 GiB (<= 1.2) | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    sources = {}
    for label, size in sizes:
        sources[label] = os.path.join(folder, "scattered." + label.replace(" ", ""))
        scattered(sources[label], size, raw, 512 << 20)
    for name, mine in [("raw", ["--to", "raw"]), ("qcow2", ["--to", "qcow2"]), ("vmdk", ["--to", "vmdk"]),
                       ("stream, fast", ["--to", "vmdk", "--subformat", "streamOptimized", "--level", "fast"]),
                       ("vhd", ["--to", "vhd"]), ("vdi", ["--to", "vdi"]), ("vhdx", ["--to", "vhdx"])]:
        if not writes(args.program, mine[1]) or (args.only and not any(word in name for word in args.only)):
            continue
        found = {label: [] for label, _ in sizes}
        peak = 0
        for _ in range(args.reps):
            for label, size in sizes:
                if name == "vhd" and size > 2040 << 30:
                    continue
                wall, cpu, rss = run(ours(args.program, sources[label], out, *mine), out)
                found[label].append(cpu / (allocated(sources[label]) >> 20) * 512)
                peak = max(peak, rss)
        os.unlink(out)
        small, large = found["8 GiB"], found["100 GiB"]
        huge = found["10 TiB"]
        first = median([b / a for a, b in zip(small, large)])
        second = median([b / a for a, b in zip(large, huge)]) if huge else None
        print(f"| {name} | {median(small):.2f} | {median(large):.2f} | {median(huge) if huge else 0:.2f} | {first:.2f} "
              f"{'yes' if first <= 1.3 else 'NO'} | "
              + (f"{second:.2f} {'yes' if second <= 1.2 else 'NO'}" if second else "past the format") + f" | {peak:.0f} |",
              flush=True)


# Nothing but read() and write() of the ranges that hold data, by threads that take pieces of 256 KiB; one at a time
# writes where the last argument is 1. Prints its own CPU and wall seconds.
BARE = """
import os, resource, sys, threading, time
source, out = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
threads, single = int(sys.argv[3]), sys.argv[4] == "1"
os.ftruncate(out, os.fstat(source).st_size)
pieces, at = [], 0
try:
    while True:
        at = os.lseek(source, at, os.SEEK_DATA)
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            pieces.append((at, min(end, (at >> 18) + 1 << 18)))
            at = pieces[-1][1]
except OSError:
    pass
pieces.reverse()
lock = threading.Lock()
def work():
    held = memoryview(bytearray(1 << 18))
    while pieces:
        try:
            at, end = pieces.pop()
        except IndexError:
            return
        os.preadv(source, [held[:end - at]], at)
        if single:
            with lock:
                os.pwrite(out, held[:end - at], at)
        else:
            os.pwrite(out, held[:end - at], at)
before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
others = [threading.Thread(target=work) for _ in range(threads - 1)]
for other in others:
    other.start()
work()
for other in others:
    other.join()
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - start)
"""


def limit(args, folder, raw):
    """What a program takes that reads and writes and does nothing else, beside cp and ours."""
    out = os.path.join(folder, "out")
    ways = [("one thread", 1, 0), ("two threads", 2, 0), ("two threads, one writes at a time", 2, 1)]
    rows = {name: [] for name in ["cp", "raw -> raw", "raw -> raw, one worker", *(way[0] for way in ways)]}
    for _ in range(args.reps):
        rows["cp"].append(run(["cp", raw, out], out)[:2])
        rows["raw -> raw"].append(run(ours(args.program, raw, out, "--to", "raw"), out)[:2])
        rows["raw -> raw, one worker"].append(run(ours(args.program, raw, out, "--to", "raw", "--jobs", "1"), out)[:2])
        for name, threads, single in ways:
            os.unlink(out)
            done = subprocess.run([sys.executable, "-c", BARE, raw, out, str(threads), str(single)], check=True,
                                  capture_output=True, text=True)
            cpu, wall = map(float, done.stdout.split())
            rows[name].append((wall, cpu))
            subprocess.run(["cmp", raw, out], check=True)
    os.unlink(out)
    print("| program | CPU s | wall s | CPU / cp |")
    print("|---|---|---|---|")
    for name, found in rows.items():
        copy = median([mine[1] / cp[1] for mine, cp in zip(found, rows["cp"])])
        print(f"| {name} | {median([r[1] for r in found]):.3f} | {median([r[0] for r in found]):.3f} | {copy:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--only", action="append", help="only pairs whose name holds this")
    parser.add_argument("--growth", action="store_true", help="cost against virtual size instead of the pairs")
    parser.add_argument("--limit", action="store_true", help="a program that only reads and writes instead of the pairs")
    parser.add_argument("--folder", default="/dev/shm", help="a memory file system")
    parser.add_argument("--keep", help="the guest disk: made when it is not there, and kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        raw = args.keep or os.path.join(folder, "guest.raw")
        if not os.path.exists(raw):
            guest(raw, folder)
        said = subprocess.run(["qemu-img", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
        load = " ".join(f"{number:.1f}" for number in os.getloadavg())
        print(f"{said}; {os.cpu_count()} processors, load {load}; disk of {os.stat(raw).st_size >> 20} MiB, "
              f"{allocated(raw) >> 20} MiB allocated\n")
        (growth if args.growth else limit if args.limit else pairs)(args, folder, raw)


if __name__ == "__main__":
    main()
