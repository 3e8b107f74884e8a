package devlink

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
)

// examples are requests of each kind, all of which devlink(8) can make. Those of newer need a newer one than Debian 12 has.
func examples(t testing.TB) (known, newer []request) {
	t.Helper()
	h := Handle{"netdevsim", "netdevsim1"}
	param := func(name string, v ParamValue) request {
		r, err := setParam(h, name, v)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	mac := []byte{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}
	known = []request{
		list(cmdGet, "dev show", Handle{}),
		of(cmdGet, "dev show", h),
		of(cmdInfoGet, "dev info", h),
		of(cmdEswitchGet, "dev eswitch show", h),
		setEswitch(h, Eswitch{Mode: ModeLegacy}),
		setEswitch(h, Eswitch{Mode: ModeSwitchdev}),
		setEswitch(h, Eswitch{Inline: InlineTransport}),
		setEswitch(h, Eswitch{Encap: EncapNone}),
		setEswitch(h, Eswitch{Mode: ModeSwitchdev, Inline: InlineLink, Encap: EncapBasic}),
		reload(h, Reload{}),
		reload(h, Reload{Action: ReloadDriverReinit}),
		reload(h, Reload{Action: ReloadFWActivate, NoReset: true}),
		list(cmdPortGet, "port show", Handle{}),
		ofPort(cmdPortGet, "port show", h.Port(1)),
		newPort(h, NewPort{Flavour: FlavourPCISF, PF: 0, SF: new(uint32(88))}),
		newPort(h, NewPort{Flavour: FlavourPCISF, PF: 1, SF: new(uint32(70000)), Controller: new(uint32(2))}),
		newPort(h, NewPort{Flavour: FlavourPCISF, PF: 0, SF: new(uint32(1)), Index: new(uint32(99))}),
		newPort(h, NewPort{Flavour: FlavourPCIPF, PF: 3}),
		ofPort(cmdPortDel, "port del", h.Port(32768)),
		setFunction(h.Port(32768), Function{HWAddr: mac}),
		setFunction(h.Port(32768), Function{State: Active}),
		setFunction(h.Port(32768), Function{State: Inactive, OpState: Attached}),
		setFunction(h.Port(32768), Function{HWAddr: mac, State: Active}),
		list(cmdParamGet, "dev param show", Handle{}),
		getParam(h, "max_macs"),
		param("max_macs", ParamValue{ModeDriverInit, uint32(16)}),
		param("test1", ParamValue{ModeDriverInit, false}),
		list(cmdRateGet, "port function rate show", Handle{}),
		ofRate(cmdRateGet, "port function rate show", h.Port(1).Rate()),
		ofRate(cmdRateGet, "port function rate show", h.Node("group")),
		changeRate(cmdRateNew, "port function rate add", h.Node("group"), RateChange{}),
		changeRate(cmdRateNew, "port function rate add", h.Node("other"), RateChange{TxShare: new(uint64(1 << 20)), TxMax: new(uint64(5 << 30))}),
		changeRate(cmdRateSet, "port function rate set", h.Node("other"), RateChange{Parent: new("group")}),
		changeRate(cmdRateSet, "port function rate set", h.Node("other"), RateChange{Parent: new("")}),
		changeRate(cmdRateSet, "port function rate set", h.Node("group"), RateChange{TxShare: new(uint64(0)), TxMax: new(uint64(1250000))}),
		changeRate(cmdRateSet, "port function rate set", h.Port(128).Rate(), RateChange{Parent: new("group")}),
		ofRate(cmdRateDel, "port function rate del", h.Node("group")),
		list(cmdReporterGet, "health show", Handle{}),
		ofReporter(cmdReporterGet, "health show", h.Reporter("dummy")),
		ofReporter(cmdReporterGet, "health show", h.Port(1).Reporter("tx")),
		ofReporter(cmdReporterRecover, "health recover", h.Reporter("dummy")),
		setReporter(h.Reporter("dummy"), ReporterChange{GracePeriod: new(uint64(500)), AutoRecover: new(true), AutoDump: new(false)}),
		setReporter(h.Port(1).Reporter("rx"), ReporterChange{AutoRecover: new(false)}),
	}
	newer = []request{
		setEswitch(h, Eswitch{Mode: ModeSwitchdevInactive}),
		setFunction(h.Port(32768), Function{Caps: Caps{Known: CapRoCE}}),
		setFunction(h.Port(32768), Function{Caps: Caps{Known: CapRoCE | CapMigratable, Enabled: CapMigratable}}),
		setFunction(h.Port(32768), Function{Caps: Caps{Known: CapIPsecCrypto | CapIPsecPacket, Enabled: CapIPsecCrypto | CapIPsecPacket}}),
		setFunction(h.Port(32768), Function{MaxIOEQs: new(uint32(32))}),
		setFunction(h.Port(32768), Function{HWAddr: mac, State: Active, Caps: Caps{Known: CapRoCE, Enabled: CapRoCE}, MaxIOEQs: new(uint32(2))}),
		changeRate(cmdRateSet, "port function rate set", h.Node("group"), RateChange{Priority: new(uint32(5)), Weight: new(uint32(50))}),
	}
	return known, newer
}

// The bytes that devlink(8) sends for the same command line. The file was written by TestKernelRequests, which compares with devlink itself.
func TestRequests(t *testing.T) {
	if ne.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes of integers are in the order of a little-endian machine")
	}
	byText := map[string]request{}
	known, newer := examples(t)
	for _, r := range append(known, newer...) {
		if _, twice := byText[r.text]; twice {
			t.Errorf("two requests are %q", r.text)
		}
		byText[r.text] = r
	}
	golden.Run(t, requestsFile, func(line string) string {
		r, ok := byText[line]
		if !ok {
			t.Errorf("%s: no request is %q", requestsFile, line)
		}
		delete(byText, line)
		return r.outline()
	})
	for line := range byText {
		t.Errorf("%s has no %q", requestsFile, line)
	}
}

const requestsFile = "testdata/requests.txt"

func (r request) outline() string {
	flags := uint16(0x005) // NLM_F_REQUEST, NLM_F_ACK
	if r.dump {
		flags |= 0x300 // NLM_F_DUMP
	}
	return outline(flags, r.command, version, r.data)
}

// outline writes a message in hexadecimal, an attribute a line: its type, and its contents. Padding is left out, since that of devlink(8) is not
// initialised.
func outline(flags uint16, command, version uint8, attributes []byte) string {
	var s strings.Builder
	fmt.Fprintf(&s, "flags %#x command %d version %d\n", flags, command, version)
	var write func(b []byte, depth int)
	write = func(b []byte, depth int) {
		for len(b) >= attrHeader {
			n := int(ne.Uint16(b))
			if n < attrHeader || n > len(b) {
				break
			}
			typ, data := ne.Uint16(b[2:]), b[attrHeader:n]
			s.WriteString(strings.Repeat("  ", depth))
			if typ&attrNested != 0 {
				fmt.Fprintf(&s, "%d nested\n", typ&attrTypeMask)
				write(data, depth+1)
			} else {
				fmt.Fprintf(&s, "%d %s\n", typ, hex.EncodeToString(data))
			}
			b = b[min((n+3)&^3, len(b)):]
		}
		if len(b) > 0 {
			fmt.Fprintf(&s, "malformed %x\n", b)
		}
	}
	write(attributes, 1)
	return strings.TrimRight(s.String(), "\n")
}
