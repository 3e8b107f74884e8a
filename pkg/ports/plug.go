package ports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/reason"
)

// The external_ids of our Interfaces. ownerID is what makes an Interface ours; its value is the port's key.
const (
	ifaceID     = "iface-id"
	ifaceIDVer  = "iface-id-ver"
	attachedMAC = "attached-mac"
	ownerID     = "offloadd-port"
	installedID = "ovn-installed"
)

const defaultBridge = "br-int" // as ovn-controller(8) has it

// sockets is the door to the local Open_vSwitch database: where ports are plugged in.
type sockets struct {
	client      *ovsdb.Client
	reconnected chan struct{} // has an element when the connection has come back

	mu         sync.Mutex // guards what follows
	connected  bool
	synced     bool
	shown      uint64 // transactions whose changes are in the contents
	answered   uint64 // transactions that the server has answered
	uncertain  bool   // a transaction was given up that the server may still do
	root       *vswitchdb.OpenvSwitch
	bridges    map[string]*vswitchdb.Bridge    // by UUID
	ports      map[string]*vswitchdb.Port      // by UUID
	interfaces map[string]*vswitchdb.Interface // by UUID
	byName     map[string]string               // UUID of the Port
	ifByName   map[string]string               // UUID of the Interface
	changed    chan struct{}                   // closed at the next change
}

func newSockets(remote string, log *slog.Logger) (*sockets, error) {
	client, err := ovsdb.New(ovsdb.Config{
		Database: "Open_vSwitch",
		Remotes:  []string{remote},
		Tables: []ovsdb.Table{
			{Name: vswitchdb.OpenvSwitchTable, Row: vswitchdb.OpenvSwitch{}, Columns: []string{"external_ids"}},
			{Name: vswitchdb.BridgeTable, Row: vswitchdb.Bridge{}, Columns: []string{"name", "ports", "datapath_type"}},
			{Name: vswitchdb.PortTable, Row: vswitchdb.Port{}, Columns: []string{"name", "interfaces"}},
			{Name: vswitchdb.InterfaceTable, Row: vswitchdb.Interface{}, Columns: []string{"name", "ofport", "error", "external_ids"}},
		},
		Log: log.With("db", "Open_vSwitch", "for", "ports"),
	})
	if err != nil {
		return nil, err
	}
	return &sockets{
		client:      client,
		reconnected: make(chan struct{}, 1),
		bridges:     map[string]*vswitchdb.Bridge{},
		ports:       map[string]*vswitchdb.Port{},
		interfaces:  map[string]*vswitchdb.Interface{},
		byName:      map[string]string{},
		ifByName:    map[string]string{},
		changed:     make(chan struct{}),
	}, nil
}

// apply takes in what has changed, and returns the names of the Interfaces that did.
func (s *sockets) apply(u ovsdb.Update) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, c := range u.Changes {
		switch c.Table {
		case vswitchdb.OpenvSwitchTable:
			s.root, _ = c.New.(*vswitchdb.OpenvSwitch)
		case vswitchdb.BridgeTable:
			replace(s.bridges, nil, c, nil)
		case vswitchdb.PortTable:
			replace(s.ports, s.byName, c, func(p *vswitchdb.Port) string { return p.Name })
		case vswitchdb.InterfaceTable:
			name := func(i *vswitchdb.Interface) string { return i.Name }
			replace(s.interfaces, s.ifByName, c, name)
			for _, row := range []any{c.Old, c.New} {
				if i, ok := row.(*vswitchdb.Interface); ok && i != nil {
					names = append(names, i.Name)
				}
			}
		}
	}
	if u.Connected && !s.connected {
		select {
		case s.reconnected <- struct{}{}:
		default:
		}
	}
	s.connected, s.synced, s.shown = u.Connected, u.Synced, u.Transactions
	close(s.changed)
	s.changed = make(chan struct{})
	slices.Sort(names)
	return slices.Compact(names)
}

// replace puts the new row in the place of the old one; index, unless nil, leads from names to UUIDs.
func replace[Row any](rows map[string]*Row, index map[string]string, c ovsdb.Change, name func(*Row) string) {
	if old, ok := c.Old.(*Row); ok && old != nil && index != nil && index[name(old)] == c.UUID {
		delete(index, name(old))
	}
	row, ok := c.New.(*Row)
	if !ok || row == nil {
		delete(rows, c.UUID)
		return
	}
	rows[c.UUID] = row
	if index != nil {
		index[name(row)] = c.UUID
	}
}

// A socket is how a port is plugged in.
type socket struct {
	Exists    bool   // in the bridge
	LPort     string // iface-id
	OFPort    int    // negative: the bridge could not open the interface; 0: not yet known
	Error     string // why
	Installed bool
}

// An outlook is what the database says at one moment.
type outlook struct {
	connected bool
	bridge    bool // the integration bridge exists
	socket    socket
	changed   <-chan struct{} // closed when it may be outdated
}

// look returns what the database says of the interface called name.
func (s *sockets) look(name string) outlook {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := outlook{connected: s.connected && s.synced, changed: s.changed}
	uuid, bridge := s.bridge()
	if uuid == "" {
		return o
	}
	o.bridge = true
	i := s.interfaces[s.ifByName[name]]
	if i == nil || !slices.Contains(bridge.Ports, s.byName[name]) {
		return o
	}
	o.socket = socket{Exists: true, LPort: i.ExternalIDs[ifaceID], Installed: i.ExternalIDs[installedID] == "true"}
	if i.Ofport != nil {
		o.socket.OFPort = *i.Ofport
	}
	if i.Error != nil {
		o.socket.Error = *i.Error
	}
	return o
}

// bridge returns the integration bridge and its UUID, "" if there is none. The caller holds mu.
func (s *sockets) bridge() (string, *vswitchdb.Bridge) {
	name := defaultBridge
	if s.root != nil && s.root.ExternalIDs["ovn-bridge"] != "" {
		name = s.root.ExternalIDs["ovn-bridge"]
	}
	for uuid, b := range s.bridges {
		if b.Name == name {
			return uuid, b
		}
	}
	return "", nil
}

// userspace reports whether the integration bridge is of the userspace datapath.
func (s *sockets) userspace() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, b := s.bridge()
	return b != nil && b.DatapathType == "netdev"
}

// ours returns the keys of the ports plugged in with our mark, by the interface's name.
func (s *sockets) ours() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]string{}
	for _, i := range s.interfaces {
		if key, ok := i.ExternalIDs[ownerID]; ok {
			found[i.Name] = key
		}
	}
	return found
}

// plugged reports whether anything is plugged in for the port with a key.
func (s *sockets) plugged(k Key) bool {
	if s.look(k.hostName()).socket.Exists {
		return true
	}
	for _, key := range s.ours() {
		if key == k.String() {
			return true
		}
	}
	return false
}

// usable waits until the database has been read once.
func (s *sockets) usable(ctx context.Context) error {
	for {
		s.mu.Lock()
		synced, changed := s.synced, s.changed
		s.mu.Unlock()
		if synced {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// plug inserts Port and Interface of p. What an earlier port has left of ours under this name, a representor's, gives way.
func (s *sockets) plug(ctx context.Context, p Port) error {
	name := p.HostInterface
	s.mu.Lock()
	bridge, _ := s.bridge()
	var free []ovsdb.Operation
	if i := s.interfaces[s.ifByName[name]]; i != nil {
		if _, ours := i.ExternalIDs[ownerID]; !ours {
			s.mu.Unlock()
			return reason.Errorf(reason.RepresentorInUse, "ports plug: somebody else has %s in a bridge", name).With("interface", name)
		}
		free = s.removal(s.byName[name])
	}
	s.mu.Unlock()
	if bridge == "" {
		return bridgeMissing()
	}
	ids := map[string]string{ifaceID: p.Spec.LogicalPort, ownerID: p.Spec.Key.String()}
	if p.Spec.IfaceIDVer != "" {
		ids[ifaceIDVer] = p.Spec.IfaceIDVer
	}
	if p.Spec.Addressing == Static {
		ids[attachedMAC] = p.MAC.String()
	}
	return s.transact(ctx, "plug "+name, append(free,
		ovsdb.InsertRow(vswitchdb.InterfaceTable, "interface", map[string]any{"name": name, "external_ids": ids}),
		ovsdb.InsertRow(vswitchdb.PortTable, "port", map[string]any{"name": name, "interfaces": []ovsdb.Ref{"interface"}}),
		ovsdb.InsertElements(vswitchdb.BridgeTable, bridge, "ports", []ovsdb.Ref{"port"}),
		ovsdb.Comment("offloadd: create port "+p.Spec.Key.String()),
	)...)
}

func bridgeMissing() error {
	return reason.Errorf(reason.BridgeMissing, "ports plug: there is no integration bridge")
}

// unplug takes what is plugged in for the port with a key out of its bridge. The rows of Port and Interface go with it.
func (s *sockets) unplug(ctx context.Context, k Key) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	ops, err := s.find(ctx, k)
	if err != nil || len(ops) == 0 {
		return err
	}
	return s.transact(ctx, "unplug "+k.String(), append(ops, ovsdb.Comment("offloadd: delete port "+k.String()))...)
}

// find returns what removes the Ports of the port with a key, once the contents have every transaction of ours. A veth is ours by its
// name alone; a representor is not.
func (s *sockets) find(ctx context.Context, k Key) (ops []ovsdb.Operation, err error) {
	for {
		s.mu.Lock()
		connected, current, changed := s.connected && s.synced, s.shown >= s.answered, s.changed
		if connected && current {
			defer s.mu.Unlock()
			var names []string
			for name, uuid := range s.ifByName {
				if name == k.hostName() || s.interfaces[uuid].ExternalIDs[ownerID] == k.String() {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			for _, name := range names {
				ops = append(ops, s.removal(s.byName[name])...)
			}
			return ops, nil
		}
		s.mu.Unlock()
		if !connected {
			return nil, disconnected(errors.New("no connection"), "unplug "+k.String())
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("ports unplug %s: %w", k, ctx.Err())
		case <-changed:
		}
	}
}

// removal returns what takes a Port out of its bridge: in no bridge a Port does not exist much longer. The caller holds mu.
func (s *sockets) removal(port string) (ops []ovsdb.Operation) {
	for uuid, b := range s.bridges {
		if port != "" && slices.Contains(b.Ports, port) {
			ops = append(ops, ovsdb.DeleteElements(vswitchdb.BridgeTable, uuid, "ports", []ovsdb.Ref{ovsdb.Ref(port)}))
		}
	}
	return ops
}

func disconnected(err error, what string) error {
	return reason.Errorf(reason.OVSDBDisconnected, "ports %s: %w", what, err)
}

// transactTime is how long the local database may take for a transaction. A caller that gives up earlier does not end it: it
// could still be done after what undoes it.
const transactTime = 10 * time.Second

func (s *sockets) transact(ctx context.Context, what string, ops ...ovsdb.Operation) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transactTime)
	defer cancel()
	_, err := s.client.Transact(ctx, ops...)
	var refusal *ovsdb.TransactError
	isRefusal := errors.As(err, &refusal)
	s.mu.Lock()
	switch {
	case err == nil || isRefusal:
		s.answered++
	case ctx.Err() != nil:
		s.uncertain = true
	}
	s.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case isRefusal:
		return reason.Errorf(reason.OVSDBRefused, "ports %s: %w", what, err)
	default:
		return disconnected(err, what)
	}
}

// settle waits for transactions that were given up: the server answers one after the other.
func (s *sockets) settle(ctx context.Context) error {
	s.mu.Lock()
	uncertain := s.uncertain
	s.uncertain = false
	s.mu.Unlock()
	if !uncertain {
		return nil
	}
	return s.transact(ctx, "settle", ovsdb.Comment("offloadd: is everything done?"))
}
