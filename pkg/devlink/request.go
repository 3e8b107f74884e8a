package devlink

import (
	"fmt"
	"strings"
)

// A request is a message to the kernel, and the arguments with which devlink(8) sends the same.
type request struct {
	command uint8
	dump    bool // ask for all that the command is about
	text    string
	data    []byte
}

// list asks for all that devices have of something, or if h is not zero, for what one has. Kernels before 6.6 overlook h.
func list(command uint8, text string, h Handle) request {
	if h == (Handle{}) {
		return request{command: command, dump: true, text: text}
	}
	r := of(command, text, h)
	r.dump = true
	return r
}

// of starts a request about a device.
func of(command uint8, text string, h Handle) request {
	return request{command: command, text: text + " " + h.String(), data: appendHandle(nil, h)}
}

// ofPort starts a request about a port.
func ofPort(command uint8, text string, h PortHandle) request {
	return request{command: command, text: text + " " + h.String(), data: appendPortHandle(nil, h)}
}

// say adds arguments to the text.
func (r *request) say(format string, args ...any) {
	r.text += " " + fmt.Sprintf(format, args...)
}

// attributeAt names the attribute at an offset of the data, which a kernel found fault with; "" if there is none.
func (r request) attributeAt(offset int) string {
	names, b := attributeNames, r.data
	for at := 0; len(b) >= attrHeader; {
		n := int(ne.Uint16(b))
		if n < attrHeader || n > len(b) {
			break
		}
		typ := ne.Uint16(b[2:]) & attrTypeMask
		switch {
		case at == offset:
			return names[typ]
		case offset < at+n && typ == attrPortFunction:
			at, b, names = at+attrHeader, b[attrHeader:n], functionNames
			continue
		}
		at, b = at+(n+3)&^3, b[min((n+3)&^3, len(b)):]
	}
	return ""
}

// Names of what is sent, in the words of devlink(8).
var (
	attributeNames = map[uint16]string{
		attrBusName: "bus", attrDevName: "device", attrPortIndex: "port index", attrEswitchMode: "mode",
		attrEswitchInlineMode: "inline-mode", attrEswitchEncapMode: "encap-mode", attrPortFlavour: "flavour",
		attrPortPCIPFNumber: "pfnum", attrPortPCISFNumber: "sfnum", attrPortController: "controller", attrPortFunction: "function",
		attrParamName: "name", attrParamType: "type", attrParamValueData: "value", attrParamValueCMode: "cmode",
		attrReporterName: "reporter", attrReporterGracePeriod: "grace_period", attrReporterAutoRecover: "auto_recover",
		attrReporterAutoDump: "auto_dump", attrNetNSFD: "netns", attrReloadAction: "action", attrReloadLimits: "limit",
		attrRateType: "type", attrRateTxShare: "tx_share", attrRateTxMax: "tx_max", attrRateNodeName: "node",
		attrRateParentNodeName: "parent", attrRateTxPriority: "tx_priority", attrRateTxWeight: "tx_weight",
	}
	functionNames = map[uint16]string{
		functionHWAddr: "hw_addr", functionState: "state", functionCaps: "capabilities", functionMaxIOEQs: "max_io_eqs",
	}
)

// enable is how devlink(8) says that something is on or off.
func enable(on bool) string {
	if on {
		return "enable"
	}
	return "disable"
}

// hexColon is a hardware address.
func hexColon(b []byte) string {
	return strings.ReplaceAll(fmt.Sprintf("% x", b), " ", ":")
}
