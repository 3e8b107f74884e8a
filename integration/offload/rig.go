package offload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/scene"
)

// A Rig is a lab of two nodes with the network of package scene: web1, db1, web3 and db3 run on n1, web2 and db2 on n2.
type Rig struct {
	*lab.Lab
	Scene scene.Scene

	flags []string // of the agents: those that are started later have what it says then
}

// UDPPort is open at db for web, besides the ports of package scene.
const UDPPort = 5353

// policy completes that of package scene: web's packets pass stateful ACLs too, in both directions and by default dropped, and
// UDP is for db what TCP is.
const policy = `
	acl-add pg_web from-lport 1001 'inport == @pg_web && ip' allow-related
	acl-add pg_web from-lport 1000 'inport == @pg_web && ip' drop
	acl-add pg_web to-lport 1001 'outport == @pg_web && ip' allow-related
	acl-add pg_web to-lport 1000 'outport == @pg_web && ip' drop
	acl-add pg_db to-lport 1001 'outport == @pg_db && ip4.src == $pg_web_ip4 && udp.dst == 5353' allow-related
	acl-add pg_db to-lport 1001 'outport == @pg_db && ip6.src == $pg_web_ip6 && udp.dst == 5353' allow-related
`

// software is the flag that makes the agents install filters.
const software = "--tc-software"

// Options say what to start.
type Options struct {
	OffloaddPath string

	// NIC is for nodes without software filters: n1 is of this process's network namespace, and its agent installs filters on devices that
	// can offload. Plug makes its pods. n2 has no such devices, and no filters.
	NIC  bool
	Plug func(context.Context, *lab.Node, lab.PodConfig) (time.Duration, error)

	// Uplink and Wire are the NIC's, for tunnels: lab.NodeConfig. Empty: tunnels go through a veth pair.
	Uplink, Wire string

	// Log receives a line for each step, or nothing if it is nil.
	Log io.Writer
}

// Start builds the lab and returns when everything is forwarded, with filters.
func Start(ctx context.Context, o Options) (_ *Rig, err error) {
	r := &Rig{flags: []string{software, "--offload=direct"}}
	if o.NIC {
		r.flags = r.flags[1:]
	}
	nodes := []lab.NodeConfig{
		{Name: "n1", Agent: lab.Offloadd, AgentArgs: r.flags, Host: o.NIC, Uplink: o.Uplink, Wire: o.Wire},
		{Name: "n2", Agent: lab.Offloadd, AgentArgs: r.flags},
	}
	r.Scene = scene.New(append(nodes, nodes[0]))
	r.Lab, err = lab.Start(ctx, lab.Options{Nodes: nodes, OffloaddPath: o.OffloaddPath, Datapath: lab.System, Log: o.Log})
	if err != nil {
		return nil, err
	}
	if _, err = r.NB(ctx, r.Scene.Northbound()+policy); err == nil {
		if _, err = r.Scene.PopulateBy(ctx, r.Lab, o.plug); err == nil {
			err = r.Sync(ctx)
		}
	}
	if err != nil {
		tails := r.Tails(20)
		return nil, fmt.Errorf("%w\n%s", errors.Join(err, r.Close()), tails)
	}
	return r, nil
}

// plug makes a pod and waits for nothing.
func (o *Options) plug(ctx context.Context, n *lab.Node, c lab.PodConfig) (time.Duration, error) {
	if o.Plug != nil && n.Name == "n1" {
		return o.Plug(ctx, n, c)
	}
	_, err := n.AddPod(ctx, c)
	return 0, err
}

// SetFilters restarts the agents with filters or without, and returns when they are done.
func (r *Rig) SetFilters(ctx context.Context, on bool) error {
	r.flags[0] = fmt.Sprintf("%s=%t", software, on)
	for _, n := range r.Nodes {
		if err := errors.Join(n.StopAgent(syscall.SIGTERM), n.StartAgent(lab.Offloadd)); err != nil {
			return err
		}
	}
	return r.Sync(ctx)
}

// A Path is a way from one workload to another that its policy lets pass TCP to port 5432 and UDP to UDPPort.
type Path struct {
	Name     string
	From, To string
	Tunnel   bool // the workloads are on different nodes
	Routed   bool // they are on different switches
}

// Paths are the ways through a switch and a router, inside a node and between nodes.
func Paths() []Path {
	return []Path{
		{Name: "switch, local", From: "db1", To: "db3"},
		{Name: "switch, Geneve", From: "db1", To: "db2", Tunnel: true},
		{Name: "router, local", From: "web1", To: "db1", Routed: true},
		{Name: "router, Geneve", From: "web1", To: "db2", Tunnel: true, Routed: true},
	}
}

// Picture draws the lab.
func (r *Rig) Picture() string {
	return strings.TrimPrefix(`
   n1: offloadd                              n2: offloadd
  +----------------------------+            +--------------+
  |  web1  web3    db1  db3    |            |  web2   db2  |
  |     \   |       |   /      |            |     \   /    |
  |      [    br-int    ]      |            |   [ br-int ] |
  +-------------+--------------+            +-------+------+
                +--------------- Geneve ------------+

   switch web                                     switch db
   10.1.0.0/24  fd10:1::/64  --[ router r0 ]--  10.2.0.0/24  fd10:2::/64
   web1 web2 web3                                 db1 db2 db3
`, "\n")
}
