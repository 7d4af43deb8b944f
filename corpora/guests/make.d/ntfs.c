/* Puts folders and files into an NTFS image through libntfs-3g, without
 * mounting it. Reads orders from standard input, one a line, fields by tabs:
 *   D <path>            make a folder (its parent exists)
 *   F <path> <source>   make a file with the content of <source>
 *   S <path> <8.3>      give it a short name, as Windows does
 *   T <record> <size>   cut or grow the data of an MFT record
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <ntfs-3g/attrib.h>
#include <ntfs-3g/dir.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/logging.h>
#include <ntfs-3g/unistr.h>
#include <ntfs-3g/volume.h>

static void fail(const char *what, const char *about)
{
    fprintf(stderr, "%s %s: %s\n", what, about, strerror(errno));
    exit(1);
}

static ntfs_inode *parent_of(ntfs_volume *vol, char *path, char **leaf)
{
    char *slash = strrchr(path, '/');
    ntfs_inode *parent;
    if (slash) {
        *slash = 0;
        parent = ntfs_pathname_to_inode(vol, NULL, path);
        *slash = '/';
        *leaf = slash + 1;
    } else {
        parent = ntfs_inode_open(vol, FILE_root);
        *leaf = path;
    }
    if (!parent)
        fail("no parent of", path);
    return parent;
}

static ntfs_inode *make(ntfs_volume *vol, char *path, mode_t kind, ntfs_inode **parent)
{
    char *leaf;
    ntfschar *name = NULL;
    ntfs_inode *made;
    int length;
    *parent = parent_of(vol, path, &leaf);
    length = ntfs_mbstoucs(leaf, &name);
    made = length < 0 ? NULL : ntfs_create(*parent, const_cpu_to_le32(0), name, (u8)length, kind);
    if (!made)
        fail("cannot make", path);
    free(name);
    return made;
}

static void fill(ntfs_inode *file, const char *source)
{
    static char block[65536];
    FILE *in = fopen(source, "rb");
    ntfs_attr *data = ntfs_attr_open(file, AT_DATA, AT_UNNAMED, 0);
    s64 at = 0;
    size_t got;
    if (!in || !data)
        fail("cannot open", source);
    while ((got = fread(block, 1, sizeof block, in)) > 0) {
        if (ntfs_attr_pwrite(data, at, (s64)got, block) != (s64)got)
            fail("cannot write", source);
        at += (s64)got;
    }
    fclose(in);
    ntfs_attr_close(data);
}

static void short_name(ntfs_volume *vol, char *path, const char *name)
{
    char *leaf;
    ntfs_inode *parent = parent_of(vol, path, &leaf);
    ntfs_inode *file = ntfs_pathname_to_inode(vol, NULL, path);
    if (!file)
        fail("no file", path);
    /* Closes both inodes. */
    if (ntfs_set_ntfs_dos_name(file, parent, name, strlen(name), 0))
        fail("cannot give a short name to", path);
}

static void resize(ntfs_volume *vol, const char *record, const char *size)
{
    ntfs_inode *file = ntfs_inode_open(vol, strtoull(record, NULL, 10));
    ntfs_attr *data = file ? ntfs_attr_open(file, AT_DATA, AT_UNNAMED, 0) : NULL;
    if (!data || ntfs_attr_truncate(data, strtoll(size, NULL, 10)))
        fail("cannot resize", record);
    ntfs_attr_close(data);
    if (ntfs_inode_close(file))
        fail("cannot close", record);
}

int main(int argc, char **argv)
{
    static char line[8192];
    ntfs_volume *vol;
    if (argc != 2)
        return 2;
    ntfs_log_set_handler(ntfs_log_handler_stderr);
    ntfs_set_char_encoding("C.UTF-8");
    vol = ntfs_mount(argv[1], 0);
    if (!vol)
        fail("cannot open", argv[1]);
    while (fgets(line, sizeof line, stdin)) {
        char *order = strtok(line, "\t\n"), *first = strtok(NULL, "\t\n"), *second = strtok(NULL, "\t\n");
        ntfs_inode *parent, *made;
        if (!order || !first)
            continue;
        if (*order == 'S') {
            short_name(vol, first, second);
            continue;
        }
        if (*order == 'T') {
            resize(vol, first, second);
            continue;
        }
        made = make(vol, first, *order == 'D' ? S_IFDIR : S_IFREG, &parent);
        if (*order == 'F')
            fill(made, second);
        if (ntfs_inode_close_in_dir(made, parent) || ntfs_inode_close(parent))
            fail("cannot close", first);
    }
    if (ntfs_umount(vol, FALSE))
        fail("cannot finish", argv[1]);
    return 0;
}
