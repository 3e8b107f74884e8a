package vm

import (
	"bytes"
	"fmt"
)

// An entry is a file or a directory of an initial RAM file system.
type entry struct {
	name string // without a leading slash
	mode uint32 // as in stat(2), with the type
	data []byte
}

const (
	modeDir    = 0o040755
	modeFile   = 0o100644
	modeScript = 0o100755
)

// cpio returns the entries as an archive of the format "newc", as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst describes it. A directory comes before what is in it.
func cpio(entries []entry) []byte {
	var b bytes.Buffer
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	add := func(inode int, e entry) {
		// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			inode, e.mode, 0, 0, 1, 0, len(e.data), 0, 0, 0, 0, len(e.name)+1, 0)
		b.WriteString(e.name + "\x00")
		pad()
		b.Write(e.data)
		pad()
	}
	for i, e := range entries {
		add(i+1, e)
	}
	add(0, entry{name: "TRAILER!!!"})
	return b.Bytes()
}
