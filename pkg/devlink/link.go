package devlink

import "fmt"

// Attributes of links, linux/if_link.h, and the size of struct ifinfomsg before them.
const (
	iflaParentDevName    = 56
	iflaParentDevBusName = 57
	iflaDevlinkPort      = 62

	ifinfomsgSize = 16
)

// linkRequest is RTM_GETLINK of one link, without what makes a NIC list its virtual functions. It is no command of devlink.
func linkRequest(ifindex int) request {
	data := make([]byte, ifinfomsgSize)
	ne.PutUint32(data[4:], uint32(int32(ifindex)))
	return request{text: fmt.Sprintf("port of network device %d", ifindex), data: data}
}

// decodeLink reads which port a link belongs to, which kernels tell since 6.2, and which device has registered it.
func decodeLink(b []byte) (port *PortHandle, parent Handle) {
	if len(b) < ifinfomsgSize {
		return nil, Handle{}
	}
	walk(b[ifinfomsgSize:], func(typ uint16, data []byte) {
		switch typ {
		case iflaParentDevName:
			parent.Dev = text(data)
		case iflaParentDevBusName:
			parent.Bus = text(data)
		case iflaDevlinkPort:
			port = &decodePort(data).PortHandle
		}
	})
	if parent.Bus == "" || parent.Dev == "" {
		parent = Handle{}
	}
	return port, parent
}
