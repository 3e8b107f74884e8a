package chassis

import (
	"cmp"
	"slices"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// Change is the replacement of one row. Old is nil for an inserted row, New for a deleted one; otherwise both are
// pointers to the generated type of the table.
type Change struct {
	Table, UUID string
	Old, New    any
}

// Switch is the snapshot of the Open_vSwitch database. It belongs to one goroutine; its rows are never written.
type Switch struct {
	root       *vswitchdb.OpenvSwitch
	bridges    map[string]*vswitchdb.Bridge
	ports      map[string]*vswitchdb.Port
	interfaces map[string]*vswitchdb.Interface
	datapaths  map[string]*vswitchdb.Datapath
}

// NewSwitch returns the snapshot of an empty database.
func NewSwitch() *Switch {
	return &Switch{
		bridges:    map[string]*vswitchdb.Bridge{},
		ports:      map[string]*vswitchdb.Port{},
		interfaces: map[string]*vswitchdb.Interface{},
		datapaths:  map[string]*vswitchdb.Datapath{},
	}
}

// Apply makes s reflect the changes. Tables that do not concern a chassis are ignored.
func (s *Switch) Apply(changes []Change) {
	for _, c := range changes {
		switch c.Table {
		case vswitchdb.OpenvSwitchTable:
			row, _ := c.New.(*vswitchdb.OpenvSwitch)
			if row != nil || s.root != nil && s.root.UUID == c.UUID {
				s.root = row
			}
		case vswitchdb.BridgeTable:
			replace(s.bridges, c)
		case vswitchdb.PortTable:
			replace(s.ports, c)
		case vswitchdb.InterfaceTable:
			replace(s.interfaces, c)
		case vswitchdb.DatapathTable:
			replace(s.datapaths, c)
		}
	}
}

func replace[T any](rows map[string]*T, c Change) {
	if row, _ := c.New.(*T); row != nil {
		rows[c.UUID] = row
	} else {
		delete(rows, c.UUID)
	}
}

// Root returns the row of the Open_vSwitch table, or nil while there is none.
func (s *Switch) Root() *vswitchdb.OpenvSwitch { return s.root }

// Bridge returns the bridge with the given name, or nil.
func (s *Switch) Bridge(name string) *vswitchdb.Bridge {
	for _, b := range s.bridges {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// Bridges returns the bridges in the order of their names.
func (s *Switch) Bridges() []*vswitchdb.Bridge {
	all := make([]*vswitchdb.Bridge, 0, len(s.bridges))
	for _, b := range s.bridges {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b *vswitchdb.Bridge) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
	return all
}

// Ports returns the ports of a bridge in the order of their names, without the bridge's own.
func (s *Switch) Ports(b *vswitchdb.Bridge) []*vswitchdb.Port {
	all := make([]*vswitchdb.Port, 0, len(b.Ports))
	for _, uuid := range b.Ports {
		if p := s.ports[uuid]; p != nil && p.Name != b.Name {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *vswitchdb.Port) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
	return all
}

// Interfaces returns the interfaces of a port in the order of their names: one, or several if it is a bond.
func (s *Switch) Interfaces(p *vswitchdb.Port) []*vswitchdb.Interface {
	all := make([]*vswitchdb.Interface, 0, len(p.Interfaces))
	for _, uuid := range p.Interfaces {
		if i := s.interfaces[uuid]; i != nil {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b *vswitchdb.Interface) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
	return all
}

// Capabilities returns Datapath.capabilities of the given datapath type, or nil while ovs-vswitchd has not said.
func (s *Switch) Capabilities(datapathType string) map[string]string {
	if s.root == nil {
		return nil
	}
	if dp := s.datapaths[s.root.Datapaths[datapathType]]; dp != nil {
		return dp.Capabilities
	}
	return nil
}

// ofPort returns the OpenFlow port number of an interface, 0 if it has none.
func ofPort(i *vswitchdb.Interface) uint16 {
	if i.Ofport == nil || *i.Ofport < 1 || *i.Ofport > MaxOFPort {
		return 0
	}
	return uint16(*i.Ofport)
}
