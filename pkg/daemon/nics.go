package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/deviceplugin"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A PluginConfig says how pools are offered to kubelet.
type PluginConfig struct {
	Enabled bool `json:"enabled,omitempty"`
	// KubeletDir is kubelet's --root-dir.
	KubeletDir string `json:"kubelet_dir,omitempty"`
	// A pool is the resource Prefix/POOL, unless Resources names it otherwise.
	Prefix    string            `json:"prefix,omitempty"`
	Resources map[string]string `json:"resources,omitempty"`
}

// check refuses what kubelet would.
func (c PluginConfig) check(pools []device.Pool) error {
	if !c.Enabled {
		return nil
	}
	seen := map[string]string{}
	for _, p := range pools {
		r := c.resource(p.Name)
		if err := checkResource(r); err != nil {
			return fmt.Errorf("pool %s: resource %q: %w", p.Name, r, err)
		}
		if other, twice := seen[r]; twice {
			return fmt.Errorf("pools %s and %s are both the resource %s", other, p.Name, r)
		}
		seen[r] = p.Name
	}
	for _, name := range sortedKeys(c.Resources) {
		if !slices.ContainsFunc(pools, func(p device.Pool) bool { return p.Name == name }) {
			return fmt.Errorf("resources: there is no pool %q", name)
		}
	}
	if !strings.HasPrefix(c.KubeletDir, "/") {
		return fmt.Errorf("kubelet_dir %q: not an absolute path", c.KubeletDir)
	}
	return deviceplugin.Check(c.KubeletDir, pools)
}

// checkResource refuses what is no name of an extended resource of Kubernetes: a DNS subdomain that is not its own, a slash, and a name.
func checkResource(s string) error {
	domain, name, ok := strings.Cut(s, "/")
	switch {
	case !ok || domain == "" || name == "":
		return errors.New("not DOMAIN/NAME")
	case strings.Contains(domain, "kubernetes.io"):
		return errors.New("kubernetes.io is for Kubernetes' own")
	case len(domain) > 253 || len(name) > 63:
		return errors.New("too long")
	}
	for part := range strings.SplitSeq(domain, ".") {
		if part == "" || part != strings.Trim(part, "-") || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return errors.New("the part before the slash is no domain in lower case")
		}
	}
	const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if name != strings.Trim(name, "-_.") || strings.Trim(name, alphanumeric+"-_.") != "" {
		return errors.New("the part behind the slash has other characters than letters, digits, and between them -, _ and dots")
	}
	return nil
}

// resource is the name of a pool's resource.
func (c PluginConfig) resource(pool string) string {
	if r := c.Resources[pool]; r != "" {
		return r
	}
	return c.Prefix + "/" + pool
}

// offered has the resource of each pool that is offered.
func (c Config) offered() map[string]string {
	all := map[string]string{}
	if c.DevicePlugin.Enabled {
		for _, p := range c.Pools {
			all[p.Name] = c.DevicePlugin.resource(p.Name)
		}
	}
	return all
}

// DevicePlugin returns the task that offers pools to kubelet, if that is configured and there are any.
func DevicePlugin(config Config, devices *device.Inventory, attached *ports.Service, log *slog.Logger) []Task {
	offered := config.offered()
	if devices == nil || len(offered) == 0 {
		return nil
	}
	plugin := deviceplugin.New(deviceplugin.Options{
		KubeletDir: config.DevicePlugin.KubeletDir,
		Resources:  offered,
		Snapshot:   devices.Snapshot,
		RDMA:       devices.RDMA,
		RDMANodes:  devices.RDMANodes,
		Held:       func() map[string]string { return heldByName(attached.Feed()) },
		Ready:      attached.Ready(),
		Log:        log,
	})
	return []Task{{"device-plugin", plugin.Run}, {"device-plugin-ports", func(ctx context.Context) error {
		onChanges(ctx, attached.Feed(), plugin.Look)
		return nil
	}}}
}

// onChanges calls look after each change of ports, until ctx ends.
func onChanges(ctx context.Context, feed *ports.Feed, look func()) {
	_, revision := feed.All()
	for {
		events, lost, err := feed.Next(ctx, revision)
		switch {
		case err != nil:
			return
		case lost > 0:
			_, revision = feed.All()
		default:
			revision = events[len(events)-1].Revision
		}
		look()
	}
}

// heldByName has the port that has asked for a function, by the name that it asked for.
func heldByName(f *ports.Feed) map[string]string {
	held := map[string]string{}
	all, _ := f.All()
	for _, p := range all {
		if p.Spec.Device != "" {
			held[p.Spec.Device] = p.Spec.Key.String()
		}
	}
	return held
}

// nics tells the API of an inventory, and what does not fit together. It implements api.Devices.
type nics struct {
	*device.Inventory
	offered map[string]string // resource by pool
	kubelet string            // its directory
	feed    *ports.Feed
	audit   func(context.Context) ([]ports.Leftover, error)
	filters func(context.Context, api.FilterFilter, func(api.Filter) error) error
	settle  time.Duration // how long kubelet and ports may be of different opinions
}

// settleTime is how long a pod may be between what kubelet does and what the CNI plugin does, with some room.
const settleTime = 2 * time.Second

// NewNICs returns the API's view of an inventory. If that is nil there are no NICs, but what does not fit together can be asked for.
func NewNICs(config Config, devices *device.Inventory, attached *ports.Service, flows *Flows, log *slog.Logger) api.Devices {
	if devices == nil {
		devices = device.New(device.Options{Log: log}) // it does not run: nothing changes
	}
	return &nics{
		Inventory: devices, offered: config.offered(), kubelet: config.DevicePlugin.KubeletDir,
		feed: attached.Feed(), audit: attached.Audit, filters: flows.Filters, settle: settleTime,
	}
}

func (n *nics) Resource(pool string) string { return n.offered[pool] }

// Describe asks the driver over a connection of its own, so that what takes long holds up nobody else.
func (n *nics) Describe(ctx context.Context, h devlink.Handle) (api.DeviceDetails, error) {
	conn, err := devlink.Dial(devlink.DialOptions{})
	if err != nil {
		return api.DeviceDetails{}, reason.Errorf(reason.DeviceFailed, "daemon device %v: %w", h, err)
	}
	defer func() { _ = conn.Close() }()
	return describe(ctx, conn, h)
}

func describe(ctx context.Context, conn *devlink.Conn, h devlink.Handle) (api.DeviceDetails, error) {
	var d api.DeviceDetails
	var gone error
	note := func(err error) {
		switch {
		case err == nil || errors.Is(err, devlink.ErrUnsupported):
		case errors.Is(err, devlink.ErrGone):
			gone = err
		default:
			d.Refused = append(d.Refused, err)
		}
	}
	var err error
	d.Eswitch, err = conn.Eswitch(ctx, h)
	note(err)
	d.Info, err = conn.Info(ctx, h)
	note(err)
	d.Reporters, err = conn.Reporters(ctx, h)
	note(err)
	switch {
	case ctx.Err() != nil:
		return api.DeviceDetails{}, ctx.Err()
	case gone != nil:
		return api.DeviceDetails{}, reason.Errorf(reason.DeviceGone, "daemon device %v: %w", h, gone)
	}
	return d, nil
}

// Leftovers compares what there is with what somebody owns.
func (n *nics) Leftovers(ctx context.Context) ([]api.Leftover, error) {
	found, err := n.audit(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.Leftover
	for _, l := range found {
		all = append(all, api.Leftover{Where: l.Where, Name: l.Name, Cause: l.Cause, Remedy: remedy(l)})
	}
	all = append(all, unmanaged(n.Snapshot())...)
	err = n.filters(ctx, api.FilterFilter{States: []api.FilterState{api.FilterForeign}}, func(f api.Filter) error {
		all = append(all, api.Leftover{Where: "filter", Name: f.Text, Cause: "somebody else has put it where ours are; it is left alone"})
		return nil
	})
	if err != nil && reason.Of(err) != reason.FeatureUnsupported { // there are none of ours that others could be among
		return nil, err
	}
	if len(n.offered) > 0 {
		disputed, err := n.disputed(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, disputed...)
	}
	return all, nil
}

// remedy is a command that puts a leftover of ports right, if there is one that cannot do harm.
func remedy(l ports.Leftover) string {
	switch l.Where {
	case "link":
		return "ip link del " + quoted(l.Name)
	case "interface":
		return "ovs-vsctl --if-exists del-port " + quoted(l.Name)
	case "function":
		if port, _, ok := strings.Cut(l.Name, " ("); ok && strings.HasPrefix(l.Cause, "quarantined") {
			return "offloadctl device release " + quoted(port)
		}
	}
	return ""
}

// quoted is a word for a shell.
func quoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.:/@", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// unmanaged tells of functions that are of no pool, on devices of which others are.
func unmanaged(s device.Snapshot) (all []api.Leftover) {
	pooled := map[devlink.Handle]bool{}
	for _, p := range s.Pools {
		pooled[p.Handle] = true
	}
	for _, f := range s.Functions {
		if f.State == device.Unmanaged && pooled[f.Handle.Handle] {
			all = append(all, api.Leftover{Where: "function", Name: f.Name(), Cause: "it is of no pool, although others of its device are: no port gets it"})
		}
	}
	return all
}

// disputed tells in what kubelet and ports are of different opinions, and stay so for a while: a pod that starts or ends has for a moment what
// it does not use, or uses what it no longer has.
func (n *nics) disputed(ctx context.Context) ([]api.Leftover, error) {
	first := n.dispute(ctx)
	if len(first) == 0 {
		return nil, nil
	}
	t := time.NewTimer(n.settle)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return slices.DeleteFunc(n.dispute(ctx), func(l api.Leftover) bool { return !slices.Contains(first, l) }), nil
}

func (n *nics) dispute(ctx context.Context) (all []api.Leftover) {
	resources := map[string]bool{}
	for _, r := range n.offered {
		resources[r] = true
	}
	given, err := deviceplugin.Allocations(ctx, n.kubelet, resources)
	if err != nil {
		return []api.Leftover{{Where: "kubelet", Name: n.kubelet, Cause: "it does not tell what it has given to pods: " + err.Error()}}
	}
	has := map[string]string{} // port by what kubelet calls what it has
	ports, _ := n.feed.All()
	for _, p := range ports {
		switch {
		case p.Spec.Device != "":
			has[p.Spec.Device] = p.Spec.Key.String()
		case p.Function != nil && p.Function.Kind == device.VF:
			has[p.Function.Device] = p.Spec.Key.String()
		}
	}
	told := map[string]bool{}
	for _, a := range given {
		told[a.ID] = true
		if has[a.ID] == "" {
			all = append(all, api.Leftover{Where: "kubelet", Name: a.Holder(), Cause: fmt.Sprintf("it has been given %s %s, which no port has", a.Resource, a.ID)})
		}
	}
	offered := n.offeredNames()
	for id, port := range has {
		if offered[id] && !told[id] {
			all = append(all, api.Leftover{Where: "kubelet", Name: port, Cause: "the port has " + id + ", which kubelet has given to nobody, and may give to a pod"})
		}
	}
	slices.SortFunc(all, func(a, b api.Leftover) int { return strings.Compare(a.Name+a.Cause, b.Name+b.Cause) })
	return all
}

// offeredNames are what kubelet has been offered by name.
func (n *nics) offeredNames() map[string]bool {
	names := map[string]bool{}
	s := n.Snapshot()
	for _, p := range s.Pools {
		if p.Kind == device.SF && n.offered[p.Name] != "" {
			for i := range p.Capacity {
				names[p.Slot(i)] = true
			}
		}
	}
	for _, f := range s.Functions {
		if f.Kind == device.VF && n.offered[f.Pool] != "" {
			names[f.Device] = true
		}
	}
	return names
}
