package devlink

import (
	"fmt"
	"strconv"
	"strings"
)

// A Handle names a device: pci/0000:03:00.0 or auxiliary/mlx5_core.sf.4.
type Handle struct {
	Bus, Dev string
}

// ParseHandle reads BUS/DEV.
func ParseHandle(s string) (Handle, error) {
	bus, dev, ok := strings.Cut(s, "/")
	if !ok || !isWord(bus) || !isWord(dev) || strings.Contains(dev, "/") {
		return Handle{}, fmt.Errorf("devlink handle %q: not of the form BUS/DEV", s)
	}
	return Handle{Bus: bus, Dev: dev}, nil
}

// String returns it as devlink(8) prints and takes it.
func (h Handle) String() string { return h.Bus + "/" + h.Dev }

// handle is that of the device to which what embeds it belongs.
func (h Handle) handle() Handle { return h }

// Port is the handle of the port with an index.
func (h Handle) Port(index uint32) PortHandle { return PortHandle{Handle: h, Index: index} }

// A PortHandle names a port. Indices are the driver's: those of mlx5 for subfunctions start at 32768.
type PortHandle struct {
	Handle
	Index uint32
}

// ParsePortHandle reads BUS/DEV/INDEX.
func ParsePortHandle(s string) (PortHandle, error) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return PortHandle{}, fmt.Errorf("devlink port %q: not of the form BUS/DEV/INDEX", s)
	}
	index, err := strconv.ParseUint(s[i+1:], 10, 32)
	if err != nil || s[i+1:] != strconv.FormatUint(index, 10) {
		return PortHandle{}, fmt.Errorf("devlink port %q: %q is no index", s, s[i+1:])
	}
	h, err := ParseHandle(s[:i])
	if err != nil {
		return PortHandle{}, fmt.Errorf("devlink port %q: not of the form BUS/DEV/INDEX", s)
	}
	return h.Port(uint32(index)), nil
}

// String returns it as devlink(8) prints and takes it.
func (h PortHandle) String() string { return fmt.Sprintf("%v/%d", h.Handle, h.Index) }

// isWord reports whether s can be an argument of a command: something visible, of ASCII.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func appendHandle(b []byte, h Handle) []byte {
	b = appendString(b, attrBusName, h.Bus)
	return appendString(b, attrDevName, h.Dev)
}

func appendPortHandle(b []byte, h PortHandle) []byte {
	return appendU32(appendHandle(b, h.Handle), attrPortIndex, h.Index)
}

// decode reads the attribute if it is a part of the handle.
func (h *Handle) decode(typ uint16, data []byte) {
	switch typ {
	case attrBusName:
		h.Bus = text(data)
	case attrDevName:
		h.Dev = text(data)
	}
}

// A Nested is another device that belongs to one or to a port: that of a subfunction, for example.
type Nested struct {
	Handle

	// NetNS says where it is if it is not in the same network namespace: the number that this namespace has for it, or -1 if
	// it has none; nil: it is here.
	NetNS *int32
}

func decodeNested(b []byte) *Nested {
	n := &Nested{}
	walk(b, func(typ uint16, data []byte) {
		n.decode(typ, data)
		if typ == attrNetNSID {
			n.NetNS = new(int32(u32(data)))
		}
	})
	if n.Handle == (Handle{}) {
		return nil
	}
	return n
}

// String returns it as devlink(8) prints it.
func (n Nested) String() string {
	switch {
	case n.NetNS == nil:
		return n.Handle.String()
	case *n.NetNS < 0:
		return n.Handle.String() + ": netnsid unknown"
	}
	return fmt.Sprintf("%v: netnsid %d", n.Handle, *n.NetNS)
}
