#!/usr/bin/env python3
"""Plants one bug for each fuzz target of the disk formats in a copy of the checkout, and fuzzes until it is found.

    fuzz/plants.py                                   all targets, 30 minutes each at most
    fuzz/plants.py --only vhd_repair --time 300      one target, five minutes
    fuzz/plants.py --keep FOLDER                     the copy and its build are kept there and used again

All bugs are built at once; the environment variable DRYLAB_PLANT says which of them a run has. A bug counts as found
when the seeds are survived with it, a run is not, and the input of that run is survived without it. The exit status
is 1 when one is not found. Needs git, a nightly compiler and cargo-fuzz.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATE = "models/image/src"
VARIABLE = "DRYLAB_PLANT"
BEHIND_LIB = f"""
/// Whether a run has the bug of this name.
pub(crate) fn planted(name: &str) -> bool {{
    static PLANT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let plant = PLANT.get_or_init(|| std::env::var("{VARIABLE}").ok());
    plant.as_deref() == Some(name)
}}
"""

# Target, file of the crate, text as it stands there exactly once, with the expression that becomes another in «», that
# other, and which mistake it is.
PLANTS = [
    ("detect", "detect.rs",
     "            «header.descriptor_offset.checked_mul(512)?»,\n", "header.descriptor_offset * 512",
     "the sector of a descriptor is made an offset without a look at overflow"),
    ("qed", "qed/check.rs",
     "let near = «offset.saturating_sub(bytes.saturating_sub(1))»..", "offset - (bytes - 1)",
     "tables that may overlap one are looked for in front of the file's start"),
    ("vmdk_flat", "vmdk/open.rs",
     "c.is_control() || «matches!(c, '/' | '\\\\')»;", "matches!(c, '/')",
     "a backslash in an extent's name is not taken for a folder"),
    ("vmdk_split", "vmdk/esx.rs",
     "let span = |at: u64, sectors: u64| at..«at.saturating_add(sectors)»;", "at + sectors",
     "place and size of a seSparse area are summed up without a look at overflow"),
    ("vmdk", "vmdk/hosted.rs",
     ".and_then(|size| «drylab_block::slice_at(packed, 12, index(u64::from(size)))»)",
     "packed.get(12..).map(|rest| &rest[..index(u64::from(size))])",
     "the length in a grain's marker is believed"),
    ("vmdk_repair", "vmdk/repair.rs",
     "header.version = «header.version.max(2)»;", "header.version",
     "the version that grains of zeros need is forgotten"),
    ("vmdk_structure", "vmdk/check_tables.rs",
     "let mut places = (0u64..).zip(«ours.iter()».zip(&theirs))", "ours[..ours.len().saturating_sub(1)].iter()",
     "the last entry of a grain table is not compared with its copy"),
    ("vmdk_written", "vmdk/sparse.rs",
     "let directory = div_up(«tables».saturating_mul(4), SECTOR).max(1);", "tables.saturating_sub(1)",
     "a directory has no room for an entry that begins another sector"),
    ("vhd", "vhd/read.rs",
     "let inside = «self.stored.saturating_sub(offset).min(left)»;", "self.stored.saturating_sub(offset)",
     "an extent of a fixed disk runs on to the footer, also where the disk ends before it"),
    ("vhd_repair", "vhd/repair.rs",
     "if «place.saturating_sub(end) < FOOTER» {", "false",
     "a footer that moves by less than its length is written over the only one there is"),
    ("vhd_structure", "vhd/blocks.rs",
     "        if self.metadata_in(«start», end).is_some() {\n            Some(Fault::Metadata)", "data",
     "a block may stand in a structure with its bitmap"),
    ("vhd_written", "vhd/write.rs",
     "vec![0xffu8; index(round_up(«entries».saturating_mul(4), SECTOR))]", "entries.saturating_sub(1)",
     "a BAT has no room for an entry that begins another sector"),
    ("vhdx", "vhdx/bat.rs",
     "«self.disk_bytes.saturating_sub(start)».min(self.block_bytes)", "(self.disk_bytes - start)",
     "what a block has of the disk is reckoned also where it begins behind the disk's end"),
    ("vhdx_repair", "vhdx/repair.rs",
     "Some(Fault::BeyondEnd) if «seen.placed && !seen.shared» =>", "seen.placed",
     "two blocks at one place behind the end both get the bytes that the file lacks"),
    ("vhdx_structure", "vhdx/survey.rs",
     "Slot::Payload(_) if «matches!(state, 4 | 5)» => Some(Fault::State),", "state == 4",
     "of the two states that are none, one is not known"),
    ("vhdx_written", "vhdx/write.rs",
     "let page = div(«at», PIECE);", "at.saturating_sub(1)",
     "the entry that begins another page of the BAT is put into the one before"),
    ("qcow2", "qcow2/read.rs",
     "let left = «self\n            .source\n            .len()\n            .checked_sub(offset)»\n",
     "Some(self.source.len() - offset)",
     "the bytes behind a compressed cluster's place are reckoned where the file ends before it"),
    ("qcow2_repair", "qcow2/repair.rs",
     "                new.with_copied(«mender.references(offset) == 1»)\n", "mender.references(offset) >= 1",
     "bit 63 is set for clusters with several references, too"),
    ("qcow2_structure", "qcow2/check.rs",
     "if offset != 0 && «wrong(bit, one(offset))» {", "bit && wrong(bit, one(offset))",
     "an L1 entry without bit 63 is always taken for right"),
    ("qcow2_written", "qcow2/write.rs",
     "self.next.min(«match rem(self.packed, self.cluster) {\n            0 => u64::MAX,\n            _ => div(self.packed, self.cluster),\n        }»);",
     "u64::MAX",
     "refcounts are written before the last compressed cluster has all its references"),
    ("vdi", "vdi/read.rs",
     "let left = «self.header.size.saturating_sub(start)»;", "self.header.size - start",
     "a map entry behind the disk's end is taken for one of its blocks"),
    ("vdi_repair", "vdi/repair.rs",
     "        let again = «last.replace(*number) == Some(*number)»;\n", "last.replace(*number) == Some(*number) && wrong.last().is_none_or(|(_, moved)| moved != number)",
     "of several blocks with one number only the second gets another"),
    ("vdi_structure", "vdi/header.rs",
     "if «self.blocks < needed» {", "self.blocks.saturating_add(1) < needed",
     "a map that is one entry short is not reported"),
    ("vdi_written", "vdi/write.rs",
     "        at = «end»;\n", "end.saturating_add(1)",
     "between two pieces of a fixed disk's map an entry is left out"),
]


def copy_of_checkout(folder):
    """Copies what git does not ignore, with the bugs in it; files that are the same are left alone, so that they are not built again."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True).stdout
    planted = {}
    for target, file, text, wrong, _ in PLANTS:
        path = f"{CRATE}/{file}"
        planted.setdefault(path, (ROOT / path).read_text())
        before, right, behind = re.fullmatch("(.*)«(.*)»(.*)", text, re.DOTALL).groups()
        count = planted[path].count(before + right + behind)
        if count != 1:
            sys.exit(f"{path} has the text for {target} {count} times, not once: {before + right + behind!r}")
        bug = f'{before}(if crate::planted("{target}") {{ {wrong} }} else {{ {right} }}){behind}'
        planted[path] = planted[path].replace(before + right + behind, bug)
    planted[f"{CRATE}/lib.rs"] = (ROOT / CRATE / "lib.rs").read_text() + BEHIND_LIB
    for name in filter(None, names.decode().split("\0")):
        source, place = ROOT / name, folder / name
        if not source.is_file():
            place.unlink(missing_ok=True)
            continue
        new = planted[name].encode() if name in planted else source.read_bytes()
        if not place.is_file() or place.read_bytes() != new:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(new)


def build(tree, binaries, targets, options):
    environment = dict(os.environ, CARGO_BUILD_JOBS=str(options.jobs))
    for target in targets:
        command = [*shlex.split(options.cargo), "fuzz", "build", "--fuzz-dir", "fuzz", "--target-dir", str(binaries), target]
        subprocess.run(command, cwd=tree, check=True, env=environment)


def dictionary(tree, target):
    """The target's, or that of its format."""
    for name in (target, target.split("_")[0]):
        path = tree / "fuzz/dictionaries" / f"{name}.dict"
        if path.is_file() and not target.endswith(("_structure", "_written")):
            return [f"-dict={path}"]
    return []


def run(binary, plant, arguments):
    """Exit status and output of a fuzz target."""
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    environment.update(ASAN_OPTIONS="detect_odr_violation=0", RUST_BACKTRACE="0")
    if plant:
        environment[VARIABLE] = plant
    command = [str(binary), "-timeout=10", "-rss_limit_mb=2048", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode(errors="replace")


def finding(output):
    """What a run ended with: the place of a panic and its message, or libFuzzer's own words."""
    panic = re.search(r"panicked at (\S+):\d+:\n(.*(?:\n .*)*)", output)
    if panic:
        place = re.sub(r"^.*?((models|properties)/)", r"\1", panic[1])
        words = re.sub(r"\(\w+Options \{.*\}\)", "", " ".join(panic[2].split())).replace("|", "\\|")
        return f"{place}: {words[:150]}"
    error = re.search(r"ERROR: (.*)", output)
    return error[1][:150] if error else output[-150:].replace("\n", " ")


def hunt(tree, binary, target, options):
    """Whether the target's bug was found, with seconds, executions and what was seen."""
    with tempfile.TemporaryDirectory(prefix="plant-") as folder:
        corpus, found = Path(folder, "corpus"), Path(folder, "found")
        shutil.copytree(tree / "corpora/fuzz" / target, corpus)
        found.mkdir()
        # Where the inputs of a run go if one of the seeds is one.
        prefix = f"-artifact_prefix={found}/"
        status, output = run(binary, target, ["-runs=0", prefix, str(corpus)])
        if status != 0:
            return False, 0, 0, f"found by a seed already: {finding(output)}"
        arguments = [f"-max_total_time={options.time}", f"-seed={options.seed}", "-print_final_stats=1", prefix]
        if target.endswith("_structure"):
            arguments += ["-len_control=0", "-max_len=4096"]
        if target.endswith(("_structure", "_written")):
            # Threads that are about to end are taken for leaks.
            arguments.append("-detect_leaks=0")
        start = time.monotonic()
        status, output = run(binary, target, [*arguments, *dictionary(tree, target), str(corpus)])
        seconds = time.monotonic() - start
        count = re.findall(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)", output, re.MULTILINE)
        executions = int(max(count[-1])) if count else 0
        inputs = sorted(found.iterdir())
        if status == 0 or not inputs:
            return False, seconds, executions, f"not found (exit status {status})"
        without, other = run(binary, None, [str(inputs[0])])
        if without != 0:
            return False, seconds, executions, f"found something else, which is there without it: {finding(other)}"
        return True, seconds, executions, finding(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TARGET", action="append", help="this target; may be given again")
    parser.add_argument("--time", metavar="S", type=int, default=1800, help="seconds for each target at most")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where the copy and its build are kept")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count(), help="jobs of the build")
    parser.add_argument("--seed", type=int, default=1, help="seed of the fuzzer")
    parser.add_argument("--cargo", default="cargo +nightly", help="how cargo is called")
    options = parser.parse_args()
    known = [plant[0] for plant in PLANTS]
    targets = [target for target in known if target in (options.only or known)]
    if wrong := set(options.only or []) - set(known):
        parser.error(f"no bug is planted for {', '.join(sorted(wrong))}")
    with tempfile.TemporaryDirectory(prefix="plants-") as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        tree, binaries = folder / "tree", folder / "target"
        copy_of_checkout(tree)
        build(tree, binaries, targets, options)
        print("| target | mistake | s | executions | what was seen |\n|---|---|---|---|---|")
        failed = 0
        for target in targets:
            mistake = next(plant[4] for plant in PLANTS if plant[0] == target)
            [binary] = binaries.glob(f"*/release/{target}")
            found, seconds, executions, seen = hunt(tree, binary, target, options)
            failed += not found
            what = f"`{seen}`" if found else f"**{seen}**"
            print(f"| {target} | {mistake} | {seconds:.0f} | {executions:,} | {what} |", flush=True)
    print(f"{len(targets) - failed} of {len(targets)} planted bugs were found", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
