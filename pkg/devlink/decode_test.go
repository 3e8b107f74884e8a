package devlink

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// nest is an attribute that contains others.
func nest(typ uint16, inner ...[]byte) []byte {
	return appendAttr(nil, typ|attrNested, bytes.Join(inner, nil))
}

// sfPort is a port as mlx5 on a recent kernel tells it, with attributes that are not known here among the others.
func sfPort() []byte {
	h := Handle{"pci", "0000:03:00.0"}
	b := appendU8(nil, 999, 7)
	b = appendPortHandle(b, h.Port(32768))
	b = appendU16(b, attrPortType, 2)
	b = appendU32(b, attrPortNetdevIfindex, 12)
	b = appendString(b, attrPortNetdevName, "en3f0pf0sf88")
	b = appendU8(b, attrPortSplittable, 0)
	b = appendU16(b, attrPortFlavour, 7)
	b = appendU32(b, attrPortController, 1)
	b = appendU16(b, attrPortPCIPFNumber, 0)
	b = appendU32(b, attrPortPCISFNumber, 88)
	b = appendU8(b, attrPortExternal, 1)
	b = append(b, nest(attrPortFunction,
		appendAttr(nil, functionHWAddr, []byte{0, 0, 0, 0, 0x88, 0x88}),
		appendU8(nil, functionState, 1),
		appendU8(nil, functionOpState, 1),
		appendBits(nil, functionCaps, 0b1_0010, 0b1_0011), // the fifth is not known
		nest(functionDevlink, appendHandle(nil, Handle{"auxiliary", "mlx5_core.sf.4"}), appendU32(nil, attrNetNSID, 0xffffffff)),
		appendU32(nil, functionMaxIOEQs, 32),
		appendU32(nil, 77, 1),
	)...)
	return b
}

func TestDecodePort(t *testing.T) {
	want := &Port{
		PortHandle: PortHandle{Handle{"pci", "0000:03:00.0"}, 32768}, Type: TypeEth, Ifindex: 12, Netdev: "en3f0pf0sf88", Flavour: FlavourPCISF,
		Controller: 1, SF: 88, External: true, ExternalTold: true,
		Function: &Function{
			HWAddr: []byte{0, 0, 0, 0, 0x88, 0x88}, State: Active, OpState: Attached,
			Caps:     Caps{Known: CapRoCE | CapMigratable | 1<<4, Enabled: CapMigratable | 1<<4},
			Device:   &Nested{Handle: Handle{"auxiliary", "mlx5_core.sf.4"}, NetNS: new(int32(-1))},
			MaxIOEQs: new(uint32(32)),
		},
	}
	got := decodePort(sfPort())
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	// What follows something malformed is not known, what was before is.
	cut := decodePort(append(appendPortHandle(nil, want.PortHandle), 3, 0, 0, 0, 9, 9))
	if d := cmp.Diff(&Port{PortHandle: want.PortHandle}, cut); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	// A kernel that tells nothing but where: all else is zero, not the first of its values.
	if s := cut.String(); s != "pci/0000:03:00.0/32768:" {
		t.Errorf("String() = %q", s)
	}
}

// Lines of devlink(8), from its manual page and from netdevsim and mlx5 machines.
func TestShow(t *testing.T) {
	pci := Handle{"pci", "0000:06:00.0"}
	aux := Nested{Handle: Handle{"auxiliary", "mlx5_core.sf.1"}}
	for _, c := range []struct {
		value interface{ String() string }
		want  string
	}{
		{&Port{PortHandle: pci.Port(65535), Type: TypeEth, DesiredType: TypeEth, Netdev: "p0", Flavour: FlavourPhysical}, "pci/0000:06:00.0/65535: type eth netdev p0 flavour physical port 0 splittable false"},
		{
			&Port{PortHandle: pci.Port(1), Type: TypeEth, DesiredType: TypeIB, Flavour: FlavourPhysical, Number: 1, SplitGroup: new(uint32(3)), Linecard: new(uint32(8)), Lanes: 4, Splittable: true},
			"pci/0000:06:00.0/1: type eth des_type ib flavour physical lc 8 port 1 split_group 3 splittable true lanes 4",
		},
		{&Port{PortHandle: pci.Port(2), Type: TypeIB, IBDev: "mlx5_2", Flavour: FlavourVirtual}, "pci/0000:06:00.0/2: type ib ibdev mlx5_2 flavour virtual splittable false"},
		{&Port{PortHandle: pci.Port(4), Type: TypeNotSet, Flavour: FlavourPCIPF, PF: 1, ExternalTold: true}, "pci/0000:06:00.0/4: type notset flavour pcipf controller 0 pfnum 1 external false splittable false"},
		{
			&Port{PortHandle: pci.Port(32768), Type: TypeEth, Netdev: "eth6", Flavour: FlavourPCIVF, VF: 5, Function: &Function{}},
			"pci/0000:06:00.0/32768: type eth netdev eth6 flavour pcivf controller 0 pfnum 0 vfnum 5 splittable false\n  function:",
		},
		{
			decodePort(sfPort()),
			"pci/0000:03:00.0/32768: type eth netdev en3f0pf0sf88 flavour pcisf controller 1 pfnum 0 sfnum 88 external true splittable false\n" +
				"  function:\n    hw_addr 00:00:00:00:88:88 state active opstate attached roce disable migratable enable max_io_eqs 32\n" +
				"    nested_devlink:\n      auxiliary/mlx5_core.sf.4: netnsid unknown",
		},
		{&Port{PortHandle: pci.Port(9), Type: 9, Flavour: 99}, "pci/0000:06:00.0/9: type unknown (8) flavour unknown (98) splittable false"},
		{&Device{Handle: pci}, "pci/0000:06:00.0"},
		{&Device{Handle: pci, ReloadFailed: true, Nested: []Nested{aux, {Handle: aux.Handle, NetNS: new(int32(7))}}}, "pci/0000:06:00.0:\n  reload_failed true\n  nested_devlink:\n    auxiliary/mlx5_core.sf.1\n    auxiliary/mlx5_core.sf.1: netnsid 7"},
		{&Rate{RateHandle: pci.Node("g"), TxShare: 5, TxMax: 6, Priority: 7, Weight: 8, Parent: "h"}, "pci/0000:06:00.0/g: type node tx_share 5bps tx_max 6bps tx_priority 7 tx_weight 8 parent h"},
		{&Rate{RateHandle: pci.Port(3).Rate()}, "pci/0000:06:00.0/3: type leaf"},
		{
			&Reporter{ReporterHandle: pci.Port(3).Reporter("tx"), State: Healthy, Errors: 1, Recoveries: 2, GracePeriod: new(uint64(500)), AutoRecover: new(true), AutoDump: new(false)},
			"pci/0000:06:00.0/3 reporter tx: state healthy error 1 recover 2 grace_period 500 auto_recover true auto_dump false",
		},
	} {
		if got := c.value.String(); got != c.want {
			t.Errorf("String() = %q, want %q", got, c.want)
		}
	}
}

func TestDecodeOthers(t *testing.T) {
	h := Handle{"pci", "0000:03:00.0"}
	in := appendHandle(nil, h)
	param := append(append([]byte{}, in...), nest(attrParam,
		appendString(nil, attrParamName, "max_sfs"), appendAttr(nil, attrParamGeneric, nil), appendU8(nil, attrParamType, typeU64),
		nest(attrParamValuesList,
			nest(attrParamValue, appendU8(nil, attrParamValueCMode, 2), appendU64(nil, attrParamValueData, 1<<40)),
			nest(attrParamValue, appendU8(nil, attrParamValueCMode, 1))),
	)...)
	if d := cmp.Diff(&Param{Handle: h, Name: "max_sfs", Generic: true, Values: []ParamValue{{ModePermanent, uint64(1 << 40)}, {ModeDriverInit, nil}}}, decodeParam(param)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	binary := append(append([]byte{}, in...), nest(attrParam, appendString(nil, attrParamName, "x"), appendU8(nil, attrParamType, 11),
		nest(attrParamValuesList, nest(attrParamValue, appendU8(nil, attrParamValueCMode, 0), appendU64(nil, attrParamValueData, 1))))...)
	if d := cmp.Diff(&Param{Handle: h, Name: "x", Values: []ParamValue{{ModeRuntime, nil}}}, decodeParam(binary)); d != "" {
		t.Errorf("a value of a type that is not known: -want +got\n%s", d)
	}
	reloaded := appendBits(append([]byte{}, in...), attrReloadPerformed, 0b110, 0b110)
	if got := decodeReload(reloaded); !cmp.Equal(got, []ReloadAction{ReloadDriverReinit, ReloadFWActivate}) {
		t.Errorf("decodeReload() = %v", got)
	}
	device := append(appendU8(append([]byte{}, in...), attrReloadFailed, 1), nest(attrNestedDevlink, appendHandle(nil, Handle{"auxiliary", "a"}))...)
	device = append(device, nest(attrNestedDevlink, appendU32(nil, attrNetNSID, 1))...)
	if d := cmp.Diff(&Device{Handle: h, ReloadFailed: true, Nested: []Nested{{Handle: Handle{"auxiliary", "a"}}}}, decodeDevice(device)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	// Linux tells the port since 6.2, and else only who has registered the link.
	link := append(make([]byte, ifinfomsgSize), appendString(appendString(nil, iflaParentDevName, "0000:03:00.0"), iflaParentDevBusName, "pci")...)
	if port, parent := decodeLink(link); port != nil || parent != h {
		t.Errorf("decodeLink() = %v, %v", port, parent)
	}
	link = append(link, nest(iflaDevlinkPort, appendPortHandle(nil, h.Port(7)))...)
	if port, _ := decodeLink(link); port == nil || *port != h.Port(7) {
		t.Errorf("decodeLink() = %v", port)
	}
}

func TestSetParamRefuses(t *testing.T) {
	for _, v := range []ParamValue{{ModeRuntime, 5}, {ModeRuntime, nil}, {0, true}} {
		if _, err := setParam(Handle{"pci", "x"}, "n", v); err == nil || !strings.Contains(err.Error(), "dev param set pci/x name n value") {
			t.Errorf("setParam(%v) = %v", v, err)
		}
	}
}

func TestParseHandle(t *testing.T) {
	for _, s := range []string{"pci/0000:03:00.0", "auxiliary/mlx5_core.sf.4", "netdevsim/netdevsim1"} {
		if h, err := ParseHandle(s); err != nil || h.String() != s {
			t.Errorf("ParseHandle(%q) = %v, %v", s, h, err)
		}
		if h, err := ParsePortHandle(s + "/32768"); err != nil || h.String() != s+"/32768" {
			t.Errorf("ParsePortHandle(%q) = %v, %v", s, h, err)
		}
	}
	for _, s := range []string{"", "/", "pci", "pci/", "/x", "pci/x/1", "pci/x y", "pci/\x00"} {
		if h, err := ParseHandle(s); err == nil {
			t.Errorf("ParseHandle(%q) = %v", s, h)
		}
	}
	for _, s := range []string{"", "/1", "pci/1", "pci/x", "pci/x/", "pci/x/-1", "pci/x/01", "pci/x/+1", "pci/x/4294967296", "pci/x/y"} {
		if h, err := ParsePortHandle(s); err == nil {
			t.Errorf("ParsePortHandle(%q) = %v", s, h)
		}
	}
}

func TestAttributeAt(t *testing.T) {
	r := setFunction(Handle{"pci", "x"}.Port(1), Function{HWAddr: []byte{2, 0, 0, 0, 0, 1}, State: Active, MaxIOEQs: new(uint32(1))})
	found := []string{}
	for offset := range len(r.data) + 8 {
		if name := r.attributeAt(offset); name != "" {
			found = append(found, name)
		}
	}
	if want := []string{"bus", "device", "port index", "function", "hw_addr", "state", "max_io_eqs"}; !cmp.Equal(found, want) {
		t.Errorf("attributes are %q, want %q", found, want)
	}
	if name := r.attributeAt(-1); name != "" {
		t.Errorf("before the first is %q", name)
	}
}

// Numbers that are written here because the package is pure are those of the system.
func TestErrnoNumbers(t *testing.T) {
	for got, want := range map[int]unix.Errno{
		ePERM: unix.EPERM, eNOENT: unix.ENOENT, eIO: unix.EIO, eAGAIN: unix.EAGAIN, eNOMEM: unix.ENOMEM, eACCES: unix.EACCES, eBUSY: unix.EBUSY,
		eEXIST: unix.EEXIST, eNODEV: unix.ENODEV, eINVAL: unix.EINVAL, eNOSPC: unix.ENOSPC, eRANGE: unix.ERANGE, eOPNOTSUPP: unix.EOPNOTSUPP,
		eTIMEDOUT: unix.ETIMEDOUT, eINPROGRESS: unix.EINPROGRESS, eREMOTEIO: unix.EREMOTEIO,
	} {
		if got != int(want) {
			t.Errorf("%d is not %v, which is %d", got, want, int(want))
		}
	}
}

// Nothing from outside makes the decoders panic, or write to the message.
func FuzzDecode(f *testing.F) {
	known, newer := examples(f)
	for _, r := range append(known, newer...) {
		f.Add(r.command, r.data)
	}
	f.Add(uint8(cmdPortNew), sfPort())
	f.Add(uint8(cmdNew), nest(attrNestedDevlink, appendHandle(nil, Handle{"a", "b"})))
	f.Fuzz(func(t *testing.T, command uint8, b []byte) {
		before := bytes.Clone(b)
		if e, ok := decodeEvent(command, b); ok && (e.Kind == 0 || e.Kind.String() == "unknown") {
			t.Errorf("an event without a kind: %+v", e)
		}
		p := decodePort(b)
		for _, v := range []interface{ String() string }{p, decodeDevice(b), decodeInfo(b), decodeParam(b), decodeRate(b), decodeReporter(b), decodeEswitch(b)} {
			_ = v.String()
		}
		decodeReload(b)
		decodeLink(b)
		for offset := range len(b) {
			request{data: b}.attributeAt(offset)
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the message was written to")
		}
		// What is known of a function is what a request for it says.
		if p.Function != nil && p.Function.HWAddr != nil && len(p.Function.HWAddr) < 32 {
			f := Function{HWAddr: p.Function.HWAddr, State: p.Function.State, Caps: p.Function.Caps, MaxIOEQs: p.Function.MaxIOEQs}
			if f.State > Active {
				f.State = 0
			}
			again := decodePort(setFunction(p.PortHandle, f).data)
			if d := cmp.Diff(&f, again.Function); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		}
	})
}
