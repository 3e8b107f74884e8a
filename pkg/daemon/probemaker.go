package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A probeMaker makes ports for the probe, as for anybody else: see probe.Maker.
type probeMaker struct {
	agent *Agent
	ports *ports.Service
}

// Spare finds a logical port that nobody has. The Southbound tells of those on logical switches that the node has ports of, and on what routers connect with these.
func (m *probeMaker) Spare(ctx context.Context, name, target string) (probe.Spare, error) {
	if err := m.ports.Known(ctx); err != nil {
		return probe.Spare{}, err
	}
	refuse := func(r reason.Reason, format string, args ...any) error {
		return reason.Errorf(r, "probe port %s: "+format, append([]any{name}, args...)...).With("port", name)
	}
	all, _ := m.ports.Feed().All()
	if slices.ContainsFunc(all, func(p ports.Port) bool { return p.Spec.LogicalPort == name }) {
		return probe.Spare{}, refuse(reason.LPortInUse, "a port of this node is of it")
	}
	s := probe.Spare{Name: name}
	var refused error
	var text string
	err := m.agent.query(ctx, func() {
		a := m.agent
		p, to := a.store.PortByName(name), a.store.PortByName(target)
		switch {
		case p == nil:
			refused = refuse(reason.LPortNotFound, "the Southbound has no such logical port, or has it on a logical switch that no port of this node leads to")
		case p.Type != "":
			refused = refuse(reason.ProbeImpossible, "it is of type %s, and not a pod's", p.Type)
		case p.Chassis != (sb.UUID{}) || a.plugged(name):
			refused = refuse(reason.LPortInUse, "a chassis has claimed it, or an Interface names it")
		case !a.welcome(p):
			refused = refuse(reason.LPortClaimedElsewhere, "it is reserved for chassis %s", p.Options["requested-chassis"])
		default:
			text, s.Near = addresses(a.store, p), to != nil && to.Datapath == p.Datapath
		}
	})
	if err = errors.Join(err, refused); err != nil {
		return probe.Spare{}, err
	}
	words := strings.Fields(text)
	if len(words) > 1 {
		s.MAC, err = net.ParseMAC(words[0])
		for _, w := range words[1:] {
			a, bad := netip.ParseAddr(w)
			s.Addresses, err = append(s.Addresses, a), errors.Join(err, bad)
		}
	}
	if err != nil || len(s.Addresses) == 0 || len(s.MAC) != 6 {
		return probe.Spare{}, refuse(reason.LPortNoAddresses, "%q are no MAC address and IP addresses", text)
	}
	return s, nil
}

func probeKey(p probe.NewPort) ports.Key {
	return ports.Key{Network: ports.ProbeNetwork, ContainerID: p.Netns.Name, Ifname: probe.StartDevice}
}

// Make makes a port whose addresses are the logical port's.
func (m *probeMaker) Make(ctx context.Context, p probe.NewPort, known func(device string)) (made probe.Made, err error) {
	route := ports.Route{Destination: netip.PrefixFrom(p.To, p.To.BitLen()), Gateway: p.Via}
	spec, err := ports.Spec{
		Key: probeKey(p), Netns: p.Netns.Path, Kind: ports.Kind(p.Kind), Pool: p.Pool, LogicalPort: p.LogicalPort, Addressing: ports.FromLogicalPort,
		Routes: []ports.Route{route}, Labels: map[string]string{"probe": "start"},
	}.Validate()
	if err != nil {
		return made, fmt.Errorf("probe port %s: %w", p.LogicalPort, err)
	}
	var once sync.Once
	tell := func(device string) { once.Do(func() { known(device) }) }
	_, revision := m.ports.Feed().All()
	going, cancel := context.WithCancel(ctx)
	defer cancel()
	go m.follow(going, spec.Key, revision, tell) // ends with going
	port, err := m.ports.Create(ctx, ports.CreateRequest{Spec: spec, Wait: ports.UntilInstalled})
	if err != nil {
		return made, fmt.Errorf("probe port %s: %w", p.LogicalPort, err)
	}
	tell(port.HostInterface)
	for _, s := range port.Timeline {
		switch end := s.Started.Add(s.Duration); s.Name {
		case "configure":
			made.Configured = end
		case "install":
			made.Installed = end
		}
	}
	return made, nil
}

// follow calls tell when it is decided what the host's device of a port is.
func (m *probeMaker) follow(ctx context.Context, key ports.Key, revision uint64, tell func(string)) {
	for {
		if p, ok := m.ports.Feed().Find(key); ok && p.HostInterface != "" {
			tell(p.HostInterface)
			return
		}
		events, _, err := m.ports.Feed().Next(ctx, revision)
		if err != nil {
			return
		}
		if len(events) > 0 {
			revision = events[len(events)-1].Revision
		} else { // too much has happened meanwhile
			_, revision = m.ports.Feed().All()
		}
	}
}

// Unmake deletes a port.
func (m *probeMaker) Unmake(ctx context.Context, p probe.NewPort) error {
	if _, err := m.ports.Delete(ctx, ports.DeleteRequest{Key: probeKey(p)}); err != nil {
		return fmt.Errorf("probe port %s: %w", p.LogicalPort, err)
	}
	return nil
}

// Clear deletes all ports of the probe.
func (m *probeMaker) Clear(ctx context.Context) (cleared []string, err error) {
	if err := m.ports.Known(ctx); err != nil {
		return nil, err
	}
	all, _ := m.ports.Feed().All()
	for _, p := range all {
		if p.Spec.Key.Network != ports.ProbeNetwork {
			continue
		}
		if _, failed := m.ports.Delete(ctx, ports.DeleteRequest{Key: p.Spec.Key}); failed != nil {
			err = errors.Join(err, fmt.Errorf("probe port %s: %w", p.Spec.LogicalPort, failed))
			continue
		}
		cleared = append(cleared, "port "+p.Spec.Key.String())
	}
	return cleared, err
}
