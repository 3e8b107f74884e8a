package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/scene"
)

// A door is where workloads come in: on nodes with offloadd they are attached as a container runtime does it, by cnitool,
// which calls offload-cni, which asks the daemon. ovn-controller has no such door, so there the demo plugs them in itself.
type door struct {
	path string // CNI_PATH
	ctl  string // the binary of offloadctl

	networks map[string]*attach.Network // by node and tier
	pods     []attached
}

// An attached is a workload that came in by CNI, and how long ADD took.
type attached struct {
	name string
	node *lab.Node
	took time.Duration
}

func newDoor(ctx context.Context, dir, ctl string) (*door, error) {
	path, err := attach.Build(ctx, dir)
	return &door{path: path, ctl: ctl, networks: map[string]*attach.Network{}}, err
}

// plug makes a workload and returns how long it took until its flows were installed.
func (d *door) plug(ctx context.Context, n *lab.Node, c lab.PodConfig) (time.Duration, error) {
	if n.Agent() != lab.Offloadd {
		return scene.Plug(ctx, n, c)
	}
	net, err := d.network(n, c)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := net.AddPod(ctx, c); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	d.pods = append(d.pods, attached{c.Name, n, took})
	return took, nil
}

// network returns the network of a workload's tier on its node. The addresses come from the logical port, the rest from the
// configuration.
func (d *door) network(n *lab.Node, c lab.PodConfig) (*attach.Network, error) {
	tier := strings.TrimRight(c.Name, "0123456789")
	if net, ok := d.networks[n.Name+tier]; ok {
		return net, nil
	}
	type route struct {
		Dst string `json:"dst"`
	}
	conf := struct {
		Type     string   `json:"type"`
		MTU      int      `json:"mtu"`
		Gateways []string `json:"gateways"`
		Routes   []route  `json:"routes"`
	}{Type: "offload-cni", MTU: 1400}
	for _, gw := range c.Gateways {
		conf.Gateways = append(conf.Gateways, gw.String())
	}
	for _, ip := range c.IPs {
		conf.Routes = append(conf.Routes, route{ip.Masked().String()})
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	net, err := attach.NewNetwork(n, d.path, tier, string(text))
	if err != nil {
		return nil, err
	}
	d.networks[n.Name+tier] = net
	return net, nil
}

// show prints what offloadctl says of the node whose workload took longest to attach, and of that workload.
func (d *door) show(ctx context.Context, p *page) error {
	if len(d.pods) == 0 {
		return nil
	}
	slowest := slices.MaxFunc(d.pods, func(a, b attached) int { return int(a.took - b.took) })
	n := slowest.node
	for _, args := range [][]string{{"get", "ports"}, {"describe", "port", slowest.name}} {
		out, err := n.Exec(ctx, append([]string{d.ctl, "--socket", attach.Socket(n)}, args...)...)
		if err != nil {
			return err
		}
		p.heading(fmt.Sprintf("%s: offloadctl %s", n.Name, strings.Join(args, " ")))
		p.text("%s", out)
	}
	p.text("Of all workloads, %s took longest to attach: %d ms with cnitool and the plugin, which are processes.", slowest.name, slowest.took.Milliseconds())
	return nil
}

// forget removes what cnitool kept of the workloads, before their lab ends.
func (d *door) forget() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.networks)) {
		errs = append(errs, d.networks[name].Forget())
	}
	return errors.Join(errs...)
}
