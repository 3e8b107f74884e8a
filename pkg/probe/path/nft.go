package path

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is that of a namespace's only table.
const tableName = "opr"

// rules sends a change to nf_tables: what f adds, in one transaction. asked is how one would ask nft(8) for it.
func (s *space) rules(asked string, f func(*nftables.Conn, *nftables.Table)) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(s.file.Fd())), nftables.AsLasting())
	if err != nil {
		return lacks("nft "+asked, "this kernel has no nf_tables", err, unix.EPROTONOSUPPORT)
	}
	f(c, c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}))
	err = c.Flush()
	err = errors.Join(err, c.CloseLasting())
	if err == nil {
		return nil
	}
	// EOPNOTSUPP is nfnetlink_rcv_batch's answer if there is no nf_tables, ENOENT that of nf_tables to a chain type, expression or
	// flowtable that is not registered.
	return lacks("nft "+asked, "this kernel's nf_tables has nothing of that kind", err, unix.ENOENT, unix.EOPNOTSUPP)
}

// batch is how many rules are sent in one transaction. Each is answered, and more answers than a socket has room for are lost (ENOBUFS).
const batch = 50

// policy makes packets that are forwarded pass n rules that match nothing, and then conntrack.
func (s *space) policy(n int) error {
	for done := 0; done < n; done += batch {
		err := s.rules("add rule 'ip saddr ADDRESS drop' to a forward chain", func(c *nftables.Conn, t *nftables.Table) {
			chain := forwardChain(c, t)
			for i := done; i < min(done+batch, n); i++ {
				addr := []byte{203, 0, byte(i >> 8), byte(i)} // 203.0.0.0/16: nobody here
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(ipv4Address(source, addr), &expr.Verdict{Kind: expr.VerdictDrop})})
			}
		})
		if err != nil {
			return err
		}
	}
	return s.rules("add rule 'ct state new,established,related accept' to a forward chain", func(c *nftables.Conn, t *nftables.Table) {
		states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW | expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
		c.AddRule(&nftables.Rule{Table: t, Chain: forwardChain(c, t), Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: states, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	})
}

// forwardChain adds the chain, unless there is one.
func forwardChain(c *nftables.Conn, t *nftables.Table) *nftables.Chain {
	return c.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
}

// translate gives packets to one address another destination, before they are routed. They have to come in by a device, unless that
// is empty.
func (s *space) translate(from, to netip.Addr, dev string) error {
	return s.rules(fmt.Sprintf("add rule 'ip daddr %s dnat to %s' to a nat prerouting chain", from, to), func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{
			Name: "prerouting", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		})
		var exprs []expr.Any
		if dev != "" {
			exprs = device(expr.MetaKeyIIFNAME, dev)
		}
		exprs = append(exprs, ipv4Address(destination, from.AsSlice())...)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(exprs,
			&expr.Immediate{Register: 1, Data: to.AsSlice()},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
		)})
	})
}

// masquerade gives packets that leave by a device its address.
func (s *space) masquerade(dev string) error {
	return s.rules("add rule 'oifname "+dev+" masquerade' to a nat postrouting chain", func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{
			Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(device(expr.MetaKeyOIFNAME, dev), &expr.Masq{})})
	})
}

// flowtable takes connections between devices out of the routing, as soon as conntrack knows both directions.
func (s *space) flowtable(devices ...string) error {
	return s.rules("add flowtable, and rule 'flow add' to a forward chain", func(c *nftables.Conn, t *nftables.Table) {
		table := c.AddFlowtable(&nftables.Flowtable{
			Table: t, Name: "flows", Hooknum: nftables.FlowtableHookIngress, Priority: nftables.FlowtablePriorityFilter, Devices: devices,
		})
		c.AddRule(&nftables.Rule{Table: t, Chain: forwardChain(c, t), Exprs: []expr.Any{&expr.FlowOffload{Name: table.Name}}})
	})
}

// Offsets in the IPv4 header.
const (
	source      = 12
	destination = 16
)

func ipv4Address(offset uint32, addr []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr},
	}
}

func device(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded}}
}

// countRules is how many rules the namespace has.
func (s *space) countRules() (int, error) { return countRules(nftables.WithNetNSFd(int(s.file.Fd()))) }

// CountRules is how many rules of nftables the namespace of this process has. It fails on a kernel without nf_tables.
func CountRules() (int, error) { return countRules() }

func countRules(options ...nftables.ConnOption) (int, error) {
	c, err := nftables.New(append(options, nftables.AsLasting())...)
	if err != nil {
		return 0, err
	}
	defer c.CloseLasting() //nolint:errcheck // nothing was changed
	chains, err := c.ListChains()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, chain := range chains {
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			return 0, err
		}
		n += len(rules)
	}
	return n, nil
}
