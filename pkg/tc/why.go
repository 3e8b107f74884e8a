package tc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
)

// Offer adds a filter and returns what the kernel or a driver says to that, if anything. Of a filter that is installed drivers say why they
// do not take it only if it has Verbose, and of several devices the last one that refuses is heard.
func (c *Conn) Offer(ctx context.Context, t Target, f *Filter) (says string, refused error, err error) {
	m, err := message(t, AddOp(f))
	if err != nil {
		return "", err, nil
	}
	m.Header.Flags |= netlink.Acknowledge
	c.mu.Lock()
	defer c.mu.Unlock()
	messages := []netlink.Message{m}
	err = c.talk(ctx, messages, func() (bool, error) {
		got, err := c.nl.Receive()
		if refusal := (*netlink.OpError)(nil); errors.As(err, &refusal) && refusal.Sequence == messages[0].Header.Sequence {
			refused, says = refusal.Err, refusal.Message
			return true, nil
		}
		if err != nil {
			return false, err
		}
		for _, a := range got {
			if a.Header.Type == netlink.Error && a.Header.Sequence == messages[0].Header.Sequence {
				says = warning(&a)
				return true, nil
			}
		}
		return false, nil
	})
	return says, refused, err
}

// warning reads what an acknowledgement says (NLMSGERR_ATTR_MSG): behind the number 0 and the header of the request.
func warning(a *netlink.Message) (says string) {
	const header, attrMsg = 4 + 16, 1
	if a.Header.Flags&netlink.AcknowledgeTLVs == 0 || len(a.Data) < header {
		return ""
	}
	walk(a.Data[header:], func(typ uint16, data []byte) {
		if typ == attrMsg {
			says = strings.ToValidUTF8(strings.TrimRight(string(data), "\x00"), "?")
		}
	})
	return says
}

// WhyNot asks a driver why it does not take a filter of a block for a device, by offering it once more in a chain to which nothing
// leads, and removing it. The filter is offered for another port of the device's switch that has no qdisc, if there is one: of a block's devices
// only one is heard. Otherwise it is offered to the block, for all of its devices; so it is for filters of tunnel devices. says is empty if
// the driver takes it now, or has nothing to say.
func (c *Conn) WhyNot(ctx context.Context, block uint32, device string, f *Filter) (says string, err error) {
	g := *f
	g.Chain, g.Pref, g.Handle, g.Flags = scratchChain+2, whyPref, 1, Verbose
	t := Target{Block: block}
	g.Indev = ""
	if g.EncDstPort == 0 {
		qdiscs, err := c.Qdiscs(ctx)
		if err != nil {
			return "", err
		}
		if standIn := freePort(device, qdiscs); standIn != nil {
			if err := c.EnsureClsact(ctx, standIn.Index, 0); err != nil {
				return "", err
			}
			defer func() { err = errors.Join(err, c.DeleteClsact(context.WithoutCancel(ctx), standIn.Index)) }()
			t = Target{Ifindex: standIn.Index}
			if f.Indev != "" {
				g.Indev = standIn.Name
			}
		}
	}
	says, refused, err := c.Offer(ctx, t, &g)
	switch {
	case err != nil:
		return "", err
	case refused != nil:
		return cmp.Or(says, refused.Error()), nil
	}
	rest, err := c.Apply(context.WithoutCancel(ctx), t, []Op{DeleteOp(g.Key())})
	if err == nil && len(rest) > 0 {
		err = &rest[0]
	}
	if err != nil {
		return "", fmt.Errorf("tc trial filter not removed: %w", err)
	}
	return says, nil
}

// whyPref is the pref of filters that WhyNot tries.
const whyPref = 1

// freePort returns a port of the embedded switch of a device that has no qdisc for filters: preferably one that is what the device is, by its
// phys_port_name, since drivers treat uplinks apart.
func freePort(device string, qdiscs []Qdisc) *net.Interface {
	id := switchID(device)
	all, err := net.Interfaces()
	if err != nil || id == "" {
		return nil
	}
	all = slices.DeleteFunc(all, func(i net.Interface) bool {
		return i.Name == device || slices.ContainsFunc(qdiscs, func(q Qdisc) bool { return q.Ifindex == i.Index }) || switchID(i.Name) != id
	})
	like := kindOfPort(device)
	slices.SortStableFunc(all, func(a, b net.Interface) int {
		rank := func(i net.Interface) int {
			if kindOfPort(i.Name) == like {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Index, b.Index))
	})
	if len(all) == 0 {
		return nil
	}
	return &all[0]
}

// kindOfPort is a port's phys_port_name without numbers: pfvf, pfsf, p.
func kindOfPort(device string) string {
	name, err := os.ReadFile(filepath.Join("/sys/class/net", device, "phys_port_name"))
	if err != nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			return -1
		}
		return r
	}, string(name))
}
