package path

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// buildBPF is routed pods whose packets BPF programs take from device to device, as Cilium's do with native routing: from the pod's veth
// to the wire, with the next hop looked up (bpf_redirect_neigh), and from the wire right into the pod's namespace (bpf_redirect_peer). The node's
// stack sees only ARP.
func buildBPF(_ context.Context, s *site) error {
	nodes, err := s.routed(false)
	if err != nil {
		return err
	}
	for i, role := range []string{pod1, pod2} {
		n := nodes[i]
		uplink, err := n.byName(wireDevice)
		if err != nil {
			return err
		}
		host, err := n.byName(hostDevice(role))
		if err != nil {
			return err
		}
		pod, err := s.spaces[role].byName(podDevice)
		if err != nil {
			return err
		}
		if err := s.attach(n, host, "opr_from_pod", fromPod(uplink)); err != nil {
			return err
		}
		addr := binary.BigEndian.Uint32(subnets[i].Addr().AsSlice())
		if err := s.attach(n, uplink, "opr_from_wire", fromWire(addr, pod.Attrs().HardwareAddr, host)); err != nil {
			return err
		}
	}
	return nil
}

// ethernetHeader is ETH_HLEN of linux/if_ether.h.
const ethernetHeader = 14

// protocolOffset is that of __sk_buff's protocol (linux/bpf.h).
const protocolOffset = 16

// Packets that are not IPv4 go on into the stack: TC_ACT_OK and TCX_PASS are both 0.
const pass = 0

func onlyIPv4() asm.Instructions {
	ethertype := int32(binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}))
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), // the packet, where LoadAbs wants it
		asm.LoadMem(asm.R2, asm.R1, protocolOffset, asm.Word),
		asm.JNE.Imm(asm.R2, ethertype, "pass"),
	}
}

func otherwisePass() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"), asm.Return()}
}

// fromPod sends what leaves the pod out of a device, to the next hop that the routes say.
func fromPod(out netlink.Link) asm.Instructions {
	return append(append(onlyIPv4(),
		asm.Mov.Imm(asm.R1, int32(out.Attrs().Index)),
		asm.Mov.Imm(asm.R2, 0), // look the next hop up
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRedirectNeigh.Call(),
		asm.Return(),
	), otherwisePass()...)
}

// fromWire gives packets to an address the Ethernet addresses that they have on the pod's link, and puts them behind the peer of to.
func fromWire(addr uint32, mac net.HardwareAddr, to netlink.Link) asm.Instructions {
	header := append(append([]byte{}, mac...), to.Attrs().HardwareAddr...)
	program := append(onlyIPv4(),
		asm.LoadAbs(ethernetHeader+destination, asm.Word), // into R0, in the order of the machine
		asm.LoadImm(asm.R1, int64(addr), asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R1, "pass"),
	)
	for i := 0; i < len(header); i += 4 {
		program = append(program, asm.StoreImm(asm.RFP, int16(i-len(header)), int64(int32(binary.NativeEndian.Uint32(header[i:]))), asm.Word))
	}
	return append(append(program,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, int32(-len(header))),
		asm.Mov.Imm(asm.R4, int32(len(header))),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.Mov.Imm(asm.R1, int32(to.Attrs().Index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),
	), otherwisePass()...)
}

// attach runs a program on what comes in by a device: by tcx, as Cilium does, or on kernels before 6.6 by cls_bpf.
func (s *site) attach(n *space, dev netlink.Link, name string, program asm.Instructions) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: program})
	if err != nil {
		// EINVAL is the verifier's answer to a helper that there is not.
		return lacks("load BPF program "+name, "this kernel's BPF has no such program, or not its helpers", err, unix.EINVAL, unix.ENOSYS, ebpf.ErrNotSupported)
	}
	defer p.Close() //nolint:errcheck // the device keeps it
	var tcx link.Link
	err = n.do(func() (err error) {
		tcx, err = link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: p, Attach: ebpf.AttachTCXIngress})
		return err
	})
	hook := "tcx"
	switch {
	case err == nil:
		s.undo = append(s.undo, tcx.Close)
	case errors.Is(err, ebpf.ErrNotSupported):
		hook = "cls_bpf"
		if err := n.attachFilter(dev, name, p); err != nil {
			return err
		}
	default:
		return fmt.Errorf("netns %s: attach BPF program %s to %s: %w", n.name, name, dev.Attrs().Name, err)
	}
	s.fact("BPF", fmt.Sprintf("%s, JIT %s", hook, jit(p)))
	return nil
}

func (s *space) attachFilter(dev netlink.Link, name string, p *ebpf.Program) error {
	index := dev.Attrs().Index
	err := s.link.QdiscAdd(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}, QdiscType: "clsact",
	})
	if err != nil {
		return lacks("qdisc add dev "+dev.Attrs().Name+" clsact", "this kernel has no queueing discipline of that kind", err, unix.ENOENT)
	}
	err = s.link.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          p.FD(), Name: name, DirectAction: true,
	})
	if err != nil {
		return lacks("filter add dev "+dev.Attrs().Name+" ingress bpf direct-action", "this kernel has neither tcx nor filters of that kind", err, unix.ENOENT)
	}
	return nil
}

// jit says whether the program runs as machine code.
func jit(p *ebpf.Program) string {
	info, err := p.Info()
	if err != nil {
		return "unknown"
	}
	if size, err := info.JitedSize(); err != nil || size == 0 {
		return "off"
	}
	return "on"
}
