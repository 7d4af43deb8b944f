//! What must hold in a VDI.

crate::finding::rules! {
    HEADER_SIZE = "VDI-HEADER-SIZE", Warning, Lossless, "VDICore.h, VDIHEADER1: cbHeader",
        "VirtualBox refuses the file";
    VERSION = "VDI-VERSION", Warning, Lossless, "VDICore.h, VDIPREHEADER: u32Version",
        "qemu-img takes 1.1 only and refuses the file";
    HEADER_FIELD = "VDI-HEADER-FIELD", Error, Lossless, "VDICore.h, VDIHEADER1: offBlocks, offData, cbBlock, cbBlockExtra, cBlocks",
        "map, blocks and the end of the file fit another value: programs that believe this one look for blocks where none are";
    HEADER_DOUBT = "VDI-HEADER-DOUBT", Error, No, "VDICore.h, VDIHEADER1: offBlocks, offData, cbBlock, cbBlockExtra, cBlocks",
        "fields are as no known program writes them, and the blocks do not end where the file does: all blocks may be others";
    SECTOR_SIZE = "VDI-SECTOR-SIZE", Warning, Lossless, "VDICore.h, VDIDISKGEOMETRY: cbSector",
        "VirtualBox and qemu-img refuse the file";
    FLAGS = "VDI-FLAGS", Note, No, "VDICore.h, VDIHEADER1: fFlags",
        "what the flag is for is not known here";
    DISK_SIZE = "VDI-DISK-SIZE", Note, No, "VDICore.h, VDIHEADER1: cbDisk",
        "programs that know only whole sectors round the size up";
    BLOCK_SIZE = "VDI-BLOCK-SIZE", Warning, No, "VDICore.h, VDIHEADER1: cbBlock",
        "VirtualBox takes powers of two only, qemu-img 1 MiB only";
    BLOCK_COUNT = "VDI-BLOCK-COUNT", Error, No, "VDICore.h, VDIHEADER1: cBlocks",
        "the map ends before the disk does: what lies behind it cannot be read";
    BLOCKS_SPARE = "VDI-BLOCKS-SPARE", Warning, No, "VDICore.h, VDIHEADER1: cBlocks, cbDisk",
        "no known program makes room in the map for more blocks than the disk has: the disk may have been larger";
    BLOCK_BEHIND = "VDI-BLOCK-BEHIND", Error, No, "VDICore.h, VDIHEADER1: cbDisk",
        "the block stands in the file and behind the end of the disk, where nothing reads it: the disk was larger, or the entry is wrong";
    ALIGNMENT = "VDI-ALIGNMENT", Warning, No, "VDICore.h, VDIHEADER1: offBlocks, offData",
        "qemu-img refuses the file";
    DATA_IN_METADATA = "VDI-DATA-IN-METADATA", Error, No, "VDICore.h, VDIHEADER1: offData",
        "the data area begins inside the header or the map, and VirtualBox refuses the file";
    UUID = "VDI-UUID", Warning, Lossless, "VDICore.h, VDIHEADER1: uuidCreate, uuidModify",
        "VirtualBox refuses the file";
    LINKAGE = "VDI-LINKAGE", Warning, No, "VDICore.h, VDIHEADER1: uuidLinkage",
        "an image of this type has no parent, and qemu-img refuses the file";
    PARENT_MODIFY = "VDI-PARENT-MODIFY", Warning, Lossless, "VDICore.h, VDIHEADER1: uuidParentModify",
        "an image of this type has no parent, and qemu-img refuses the file";
    ALLOCATED = "VDI-BLOCKS-ALLOCATED", Warning, Lossless, "VDICore.h, VDIHEADER1: cBlocksAllocated",
        "a program that believes the number puts the next block over others or leaves a gap; qemu-img check counts it as an error";
    BLOCK_LOST = "VDI-BLOCK-LOST", Error, Lossy, "VDICore.h, VDIIMAGEBLOCKPOINTER",
        "the block stands behind the end of the file; qemu-img reads zeros there without a word; where more than half of the blocks are lost a repair is refused";
    BLOCK_CUT = "VDI-BLOCK-CUT", Error, Lossy, "VDICore.h, VDIIMAGEBLOCKPOINTER",
        "the file ends inside the block";
    BLOCK_IN_METADATA = "VDI-BLOCK-IN-METADATA", Error, Lossy, "VDICore.h, VDIIMAGEBLOCKPOINTER",
        "the block stands over the header or the map";
    BLOCK_NUMBER = "VDI-BLOCK-NUMBER", Warning, Lossless, "VDICore.h, VDIIMAGEBLOCKPOINTER",
        "the block stands behind all that the image may have: VirtualBox and qemu-img check take it for damage";
    BLOCKS_OVERLAP = "VDI-BLOCKS-OVERLAP", Error, Lossless, "VDICore.h, VDIIMAGEBLOCKPOINTER",
        "a write to one block changes another";
    PARENT_ID = "VDI-PARENT-ID", Error, No, "VDICore.h, VDIHEADER1: uuidLinkage",
        "this is not the image that the child was made on";
    PARENT_CHANGED = "VDI-PARENT-CHANGED", Error, No, "VDICore.h, VDIHEADER1: uuidParentModify",
        "the parent was written to after the child was made: what the child lacks may be wrong";
    PARENT_SIZE = "VDI-PARENT-SIZE", Warning, No, "VDICore.h, VDIHEADER1: cbDisk",
        "the parent has another size: what it lacks reads as zeros, what it has more is not seen";
}
