// Package api serves the daemon's gRPC services on a unix socket: it checks who calls and how, converts, and maps errors to
// codes. Nothing else in the daemon speaks protobuf.
//
// What the services show and do comes through six seams, Ports, Node, Flows, Devices, Probe and Monitor.
package api

import (
	"context"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
)

// Ports makes and removes ports. Errors that a caller shall understand are or wrap a *reason.Error. Calls come from
// many goroutines, and their contexts have deadlines.
type Ports interface {
	// Create returns the port when it is plugged or installed, as req.Wait says, and undoes everything if it fails. The
	// specification has passed ports.Spec.Validate. With req.ValidateOnly it changes nothing, and the port has a Spec only.
	Create(ctx context.Context, req ports.CreateRequest) (ports.Port, error)

	// Delete returns when nothing is left of the port, and whether there was one.
	Delete(ctx context.Context, req ports.DeleteRequest) (existed bool, err error)

	// Check compares a port with the kernel and Open vSwitch; no problems is nil.
	Check(ctx context.Context, req ports.CheckRequest) ([]ports.Problem, error)

	// Feed shows the ports. It is always the same.
	Feed() *ports.Feed

	// Known waits until the Feed has all ports that there are: a daemon that has just started does not know at once.
	Known(ctx context.Context) error
}

// Node tells of the chassis. Calls come from many goroutines.
type Node interface {
	Identity(ctx context.Context) (Identity, error)
	Status(ctx context.Context, req StatusRequest) (Status, error)
	// Chassis, Tunnels and Zones are in any order.
	Chassis(ctx context.Context) ([]Chassis, error)
	Tunnels(ctx context.Context) ([]Tunnel, error)
	Zones(ctx context.Context) ([]Zone, error)
	// Recompute returns when everything has been computed from nothing.
	Recompute(ctx context.Context) error
	// Leave returns when the chassis has left; when ctx ends before, leaving goes on.
	Leave(ctx context.Context) error
}

// Flows shows how packets are processed. Each method calls yield for one result after the other, in the order the .proto file
// promises, and ends with yield's error if that is not nil. Calls come from many goroutines; the state of the chassis is that at
// one moment, however slowly yield returns.
type Flows interface {
	LogicalFlows(ctx context.Context, filter LogicalFlowFilter, yield func(LogicalFlow) error) error
	Flows(ctx context.Context, filter FlowFilter, yield func(Flow) error) error
	Trace(ctx context.Context, req TraceRequest, yield func(TraceStep) error) error
	Filters(ctx context.Context, filter FilterFilter, yield func(Filter) error) error
	// Chains yields the chains that packets of a port can come to, and after each its rules.
	Chains(ctx context.Context, port string, yield func(ChainItem) error) error
	Explain(ctx context.Context, req ExplainRequest) (Explanation, error)
	FilterDiff(ctx context.Context, yield func(FilterDifference) error) error
	// PortCounters yields what filters have counted of the packets of a port, of all with "".
	PortCounters(ctx context.Context, port string, yield func(PortCounters) error) error
}

// Devices tells of NICs, their functions and the pools of those, and changes them. Most of it is device.Inventory. Calls come from many
// goroutines.
type Devices interface {
	Snapshot() device.Snapshot
	// Resource is the name by which kubelet knows a pool's functions; "": it does not.
	Resource(pool string) string
	// Describe asks the driver.
	Describe(ctx context.Context, h devlink.Handle) (DeviceDetails, error)
	// Leftovers are in any order.
	Leftovers(ctx context.Context) ([]Leftover, error)

	// What these do, or with dryRun would do, is in the plan. An error with reason FunctionsInUse comes with a plan too.
	SetMode(ctx context.Context, h devlink.Handle, mode devlink.EswitchMode, dryRun bool) (device.Plan, error)
	SetVFs(ctx context.Context, h devlink.Handle, n int, dryRun bool) (device.Plan, error)
	CreateSF(ctx context.Context, h devlink.Handle, pf uint16, number uint32, dryRun bool) (device.Plan, devlink.PortHandle, error)
	DeleteSF(ctx context.Context, h devlink.PortHandle, dryRun bool) (device.Plan, error)

	// Recover lets a function that is quarantined be verified again, and waits for the result.
	Recover(ctx context.Context, h devlink.PortHandle) error
}

// Probe measures paths. Most of it is probe.Prober. Calls come from many goroutines.
type Probe interface {
	// Run makes a run, with a Spec that is valid, and returns it as report.JSON does. It calls tell from its own goroutine. When ctx ends it returns
	// soon, and has left nothing.
	Run(ctx context.Context, spec probe.Spec, tell func(probe.Progress)) ([]byte, error)
	// RunPorts is Run between two ports.
	RunPorts(ctx context.Context, spec probe.PortSpec, tell func(probe.Progress)) ([]byte, error)
	// RunStarts is Run of ports that are made for it.
	RunStarts(ctx context.Context, spec probe.StartSpec, tell func(probe.Progress)) ([]byte, error)
	// Runs are those that are kept, the latest first.
	Runs() ([]probe.Summary, error)
	// Text is a run that is kept, in the form that Run returns. "" is the latest.
	Text(id string) ([]byte, error)
	// Clean returns what it has removed.
	Clean(ctx context.Context) ([]string, error)
}

// Monitor measures pairs of ports all the time. It is monitor.Monitor. Calls come from many goroutines.
type Monitor interface {
	// States returns all pairs, ordered by names, and a channel that is closed when there is something new.
	States(histograms bool) ([]monitor.State, <-chan struct{})
	// Answers is what ports of this node have answered and refused.
	Answers() (answered, refused uint64)
}
