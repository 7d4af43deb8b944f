"""ext4 filesystems from a list of entries, without mounting anything."""

ERA_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,"
    "sparse_super,large_file,huge_file,uninit_bg,dir_nlink,extra_isize"
)


class Tree:
    """Files and links in the order in which they are to be laid out."""

    def __init__(self):
        self.items = []

    def file(self, path, content, mode=0o644):
        data = content.encode() if isinstance(content, str) else content
        self.items.append((path.strip("/"), "file", data, mode))

    def link(self, path, target):
        self.items.append((path.strip("/"), "link", target, 0o777))

    def directory(self, path, mode=0o755):
        self.items.append((path.strip("/"), "directory", None, mode))

    def directories(self):
        found = {path: mode for path, kind, _, mode in self.items if kind == "directory"}
        for path, *_ in self.items:
            parts = path.split("/")[:-1]
            for count in range(1, len(parts) + 1):
                found.setdefault("/".join(parts[:count]), 0o755)
        return sorted(found.items())


def split(path):
    parent, _, name = path.rpartition("/")
    return "/" + parent, name


def labels(payload, tree, context):
    """Orders that set the SELinux context of the root, each folder and each file."""
    orders = []
    paths = ["", *(path for path, _ in tree.directories()), *(path for path, kind, *_ in tree.items if kind == "file")]
    for path in paths:
        text = context("/" + path)
        source = payload / text.replace(":", "-")
        source.write_bytes(text.encode() + b"\0")
        orders.append(f"ea_set -f {source} /{path} security.selinux")
    return orders


def build(shop, name, length, uuid, tree, context=None):
    """Makes the filesystem image and returns its path.

    `context` gives the SELinux context of a path, stored as the extended attribute security.selinux.

    Features and inode size are those of e2fsprogs 1.41/1.42, the era's.
    """
    image = shop.sparse(name, length)
    command = [
        "mke2fs", "-q", "-F", "-t", "ext4", "-O", ERA_FEATURES, "-b", "4096", "-I", "256", "-i", "16384",
        "-U", uuid, "-E", f"hash_seed={uuid},lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0",
    ]
    shop.run(*command, image, length // 4096)
    payload = shop.scratch / (name + ".payload")
    payload.mkdir(exist_ok=True)
    script = []
    for path, mode in tree.directories():
        parent, leaf = split(path)
        script += [f"cd {parent}", f"mkdir {leaf}", f"sif {leaf} mode 0{0o40000 | mode:o}"]
    for number, (path, kind, data, mode) in enumerate(tree.items):
        parent, leaf = split(path)
        if kind == "file":
            source = payload / str(number)
            source.write_bytes(data)
            script += [f"cd {parent}", f"write {source} {leaf}", f"sif {leaf} mode 0{0o100000 | mode:o}",
                       f"sif {leaf} uid 0", f"sif {leaf} gid 0"]
        elif kind == "link":
            script += [f"cd {parent}", f"symlink {leaf} {data}"]
    script += labels(payload, tree, context) if context else []
    commands = payload / "script"
    commands.write_text("\n".join(script) + "\n")
    output = shop.run("debugfs", "-w", "-f", commands, image)
    wrong = [line for line in output.splitlines() if not line.startswith(("debugfs", "Allocated inode"))]
    if any(line.strip() for line in wrong):
        raise SystemExit("debugfs said:\n" + "\n".join(wrong))
    shop.run("e2fsck", "-fn", image)
    return image
