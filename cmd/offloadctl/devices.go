package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// deviceLists are the commands that list what there is of NICs. They are there twice: below get, and by themselves.
func (c *cli) deviceLists() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: "devices", Short: "list the NICs with an embedded switch", Args: usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				l := newList(c, "DeviceList", deviceColumns)
				return c.call(cmd.Context(), func(d daemon) error {
					return listed(l, func(token string) ([]*offloadv1.Device, string, error) {
						r, err := d.devices.ListDevices(d.ctx, &offloadv1.ListDevicesRequest{PageToken: token})
						return r.GetDevices(), r.GetNextPageToken(), err
					})
				})
			},
		},
		c.functionsCommand(),
		{
			Use: "pools", Short: "list the pools of functions, and how full they are", Args: usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				l := newList(c, "PoolList", poolColumns)
				return c.call(cmd.Context(), func(d daemon) error {
					return listed(l, func(token string) ([]*offloadv1.Pool, string, error) {
						r, err := d.devices.ListPools(d.ctx, &offloadv1.ListPoolsRequest{PageToken: token})
						return r.GetPools(), r.GetNextPageToken(), err
					})
				})
			},
		},
	}
}

func (c *cli) functionsCommand() *cobra.Command {
	var filter functionFilter
	cmd := &cobra.Command{
		Use: "functions", Short: "list the VFs and SFs of NICs, and whose they are", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := filter.message()
			if err != nil {
				return err
			}
			l := newList(c, "FunctionList", c.functionColumns())
			return c.call(cmd.Context(), func(d daemon) error {
				return listed(l, func(token string) ([]*offloadv1.Function, string, error) {
					r, err := d.devices.ListFunctions(d.ctx, &offloadv1.ListFunctionsRequest{Filter: f, PageToken: token})
					return r.GetFunctions(), r.GetNextPageToken(), err
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&filter.parent, "device", "", "only of the device with this `handle`")
	flags.StringVar(&filter.pool, "pool", "", "only of this `pool`")
	flags.StringVar(&filter.kind, "kind", "", "only of this `kind`: vf, sf")
	flags.StringVar(&filter.owner, "owner", "", "only that of the port with this `key`")
	flags.StringSliceVar(&filter.states, "state", nil, "only in one of these `states`: "+strings.Join(functionStates(), ", "))
	mustComplete(cmd, "kind", "vf", "sf")
	mustComplete(cmd, "state", functionStates()...)
	completeFlag(cmd, "device", c.completeDevices)
	return cmd
}

// A functionFilter is the flags that select functions.
type functionFilter struct {
	parent, pool, kind, owner string
	states                    []string
}

func (f *functionFilter) message() (*offloadv1.FunctionFilter, error) {
	m := &offloadv1.FunctionFilter{Parent: f.parent, Pool: f.pool, Owner: f.owner}
	if f.kind != "" {
		v, ok := offloadv1.FunctionKind_value["FUNCTION_KIND_"+strings.ToUpper(f.kind)]
		if !ok || v == 0 {
			return nil, usageError{fmt.Errorf("--kind %q: neither vf nor sf", f.kind)}
		}
		m.Kind = offloadv1.FunctionKind(v)
	}
	for _, s := range f.states {
		v, ok := offloadv1.FunctionState_value["FUNCTION_STATE_"+strings.ToUpper(s)]
		if !ok || v == 0 {
			return nil, usageError{fmt.Errorf("--state %q: none of %s", s, strings.Join(functionStates(), ", "))}
		}
		m.States = append(m.States, offloadv1.FunctionState(v))
	}
	return m, nil
}

// functionStates are the words for states, in the order of a function's life.
func functionStates() []string {
	var all []string
	for n := range len(offloadv1.FunctionState_name) - 1 {
		all = append(all, functionStateText(offloadv1.FunctionState(n+1)))
	}
	return all
}

func functionStateText(s offloadv1.FunctionState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "FUNCTION_STATE_"))
}

func functionStateStyle(s offloadv1.FunctionState) style {
	switch s {
	case offloadv1.FunctionState_FUNCTION_STATE_FREE, offloadv1.FunctionState_FUNCTION_STATE_USED:
		return green
	case offloadv1.FunctionState_FUNCTION_STATE_QUARANTINED, offloadv1.FunctionState_FUNCTION_STATE_GONE:
		return red
	case offloadv1.FunctionState_FUNCTION_STATE_WARMING, offloadv1.FunctionState_FUNCTION_STATE_RESETTING,
		offloadv1.FunctionState_FUNCTION_STATE_REMOVING, offloadv1.FunctionState_FUNCTION_STATE_UNKNOWN:
		return yellow
	case offloadv1.FunctionState_FUNCTION_STATE_UNMANAGED, offloadv1.FunctionState_FUNCTION_STATE_UNSPECIFIED:
	}
	return plain
}

func functionKindText(k offloadv1.FunctionKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "FUNCTION_KIND_"))
}

// eswitchText returns "-" if it is not known.
func eswitchText(m offloadv1.EswitchMode) string {
	if m == offloadv1.EswitchMode_ESWITCH_MODE_UNSPECIFIED {
		return "-"
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), "ESWITCH_MODE_"))
}

// numaText returns "-" for none.
func numaText(n int32) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// functionText is which function of which PF it is.
func functionText(f *offloadv1.Function) string {
	return fmt.Sprintf("pf%d%s%d", f.GetPf(), functionKindText(f.GetKind()), f.GetNumber())
}

var deviceColumns = []column[*offloadv1.Device]{
	{name: "DEVICE", value: (*offloadv1.Device).GetHandle},
	{name: "MODE", value: func(d *offloadv1.Device) string { return eswitchText(d.GetMode()) }, style: func(d *offloadv1.Device) style {
		return choose(d.GetMode() == offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV, green, yellow)
	}},
	{name: "UPLINK", value: func(d *offloadv1.Device) string { return cmp.Or(d.GetUplink(), "-") }},
	{name: "VFS", value: func(d *offloadv1.Device) string { return fmt.Sprintf("%d/%d", d.GetVfs(), d.GetTotalVfs()) }},
	{name: "NUMA", value: func(d *offloadv1.Device) string { return numaText(d.GetNuma()) }},
	{name: "DOING", value: func(d *offloadv1.Device) string { return cmp.Or(d.GetDoing(), "-") }},
	{name: "REASON", value: func(d *offloadv1.Device) string { return cmp.Or(d.GetReason(), "-") }},
	{name: "MESSAGE", wide: true, value: func(d *offloadv1.Device) string { return cmp.Or(d.GetMessage(), "-") }},
}

func (c *cli) functionColumns() []column[*offloadv1.Function] {
	type function = *offloadv1.Function
	return []column[function]{
		{name: "PORT", value: func(f function) string { return cmp.Or(f.GetPort(), f.GetParent()) }},
		{name: "FUNCTION", value: functionText},
		{name: "STATE", value: func(f function) string { return functionStateText(f.GetState()) }, style: func(f function) style {
			return functionStateStyle(f.GetState())
		}},
		{name: "POOL", value: func(f function) string { return cmp.Or(f.GetPool(), "-") }},
		{name: "DEVICE", value: func(f function) string { return cmp.Or(f.GetDevice(), "-") }},
		{name: "REPRESENTOR", value: func(f function) string { return cmp.Or(f.GetRepresentor(), "-") }},
		{name: "OWNER", value: func(f function) string { return cmp.Or(f.GetOwner(), "-") }},
		{name: "SINCE", value: func(f function) string {
			if f.GetSince() == nil {
				return "-"
			}
			return age(c.now().Sub(f.GetSince().AsTime()))
		}},
		{name: "REASON", value: func(f function) string { return cmp.Or(f.GetReason(), "-") }},
		{name: "NETDEV", wide: true, value: func(f function) string { return cmp.Or(f.GetNetdev(), "-") }},
		{name: "NUMA", wide: true, value: func(f function) string { return numaText(f.GetNuma()) }},
		{name: "GENERATION", wide: true, value: func(f function) string {
			return choose(f.GetGeneration() == 0, "-", fmt.Sprint(f.GetGeneration()))
		}},
		{name: "MESSAGE", wide: true, value: func(f function) string { return cmp.Or(f.GetMessage(), "-") }},
	}
}

var poolColumns = []column[*offloadv1.Pool]{
	{name: "POOL", value: (*offloadv1.Pool).GetName},
	{name: "KIND", value: func(p *offloadv1.Pool) string { return functionKindText(p.GetKind()) }},
	{name: "DEVICE", value: func(p *offloadv1.Pool) string { return cmp.Or(p.GetHandle(), p.GetDevice()) }},
	{name: "CAPACITY", value: func(p *offloadv1.Pool) string { return fmt.Sprint(p.GetCapacity()) }},
	{name: "FREE", value: func(p *offloadv1.Pool) string { return fmt.Sprint(p.GetCounts()["FREE"]) }},
	{name: "USED", value: func(p *offloadv1.Pool) string { return fmt.Sprint(p.GetCounts()["USED"]) }},
	{name: "OTHER", value: otherCounts},
	{name: "WARM", value: func(p *offloadv1.Pool) string {
		if p.GetKind() != offloadv1.FunctionKind_FUNCTION_KIND_SF {
			return "-"
		}
		return fmt.Sprintf("%d-%d", p.GetMinWarm(), p.GetMaxWarm())
	}},
	{name: "REASON", value: func(p *offloadv1.Pool) string { return cmp.Or(p.GetReason(), "-") }},
	{name: "RESOURCE", wide: true, value: func(p *offloadv1.Pool) string { return cmp.Or(p.GetResource(), "-") }},
	{name: "SET", wide: true, value: poolSettings},
	{name: "MESSAGE", wide: true, value: func(p *offloadv1.Pool) string { return cmp.Or(p.GetMessage(), "-") }},
}

// poolSettings are what SFs are set to, as devlink-port(8) writes it.
func poolSettings(p *offloadv1.Pool) string {
	var words []string
	if p.Roce != nil {
		words = append(words, "roce "+choose(p.GetRoce(), "on", "off"))
	}
	if n := p.GetMaxIoEqs(); n != 0 {
		words = append(words, fmt.Sprintf("max_io_eqs %d", n))
	}
	return cmp.Or(strings.Join(words, " "), "-")
}

// otherCounts are how many functions of a pool are neither free nor used, by state.
func otherCounts(p *offloadv1.Pool) string {
	var words []string
	for _, s := range sortedKeys(p.GetCounts()) {
		if s != "FREE" && s != "USED" {
			words = append(words, fmt.Sprintf("%d %s", p.GetCounts()[s], strings.ToLower(s)))
		}
	}
	return cmp.Or(strings.Join(words, ", "), "-")
}

// describeDeviceCommand shows what a driver says.
func (c *cli) describeDeviceCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "device DEVICE",
		Short:             "show a NIC: its eswitch, its firmware, and the health of its parts",
		Long:              "DEVICE is a handle, as pci/0000:03:00.0, or the network device of a PF.",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd.Context(), func(d daemon) error {
				r, err := d.devices.GetDevice(d.ctx, &offloadv1.GetDeviceRequest{Device: args[0]})
				if err != nil {
					return client.Error(err)
				}
				if c.structured() {
					return c.print("DeviceDetails", r)
				}
				c.printDevice(r)
				return nil
			})
		},
	}
}

func (c *cli) printDevice(r *offloadv1.GetDeviceResponse) {
	d, s := r.GetDevice(), &sheet{c: c}
	s.add("Device", d.GetHandle())
	s.add("Mode", eswitchText(d.GetMode()))
	s.add("Inline mode", r.GetInlineMode())
	s.add("Encap mode", r.GetEncapMode())
	s.add("Reason", d.GetReason())
	s.add("Message", d.GetMessage())
	s.add("Doing", d.GetDoing())
	s.add("Uplink", d.GetUplink())
	s.add("VFs", fmt.Sprintf("%d of %d", d.GetVfs(), d.GetTotalVfs()))
	s.add("NUMA node", numaText(d.GetNuma()))
	s.add("Driver", r.GetInfo().GetDriver())
	s.add("Serial number", r.GetInfo().GetSerial())
	s.add("Board", r.GetInfo().GetBoardSerial())
	for _, group := range []struct {
		name     string
		versions []*offloadv1.DeviceVersion
	}{{"Fixed", r.GetInfo().GetFixed()}, {"Running", r.GetInfo().GetRunning()}, {"Stored", r.GetInfo().GetStored()}} {
		for _, v := range group.versions {
			s.add(group.name, v.GetName()+" "+v.GetValue())
		}
	}
	for _, refused := range r.GetRefused() {
		s.add("Refused", refused)
	}
	s.print()
	if len(r.GetReporters()) == 0 {
		return
	}
	fmt.Fprintln(c.stdout)
	t := table{c: c}
	if !c.noHeaders {
		t.heading = []cell{{text: "REPORTER"}, {text: "HEALTH"}, {text: "ERRORS"}, {text: "RECOVERIES"}, {text: "LAST-DUMP"}}
	}
	for _, h := range r.GetReporters() {
		dump := "-"
		if h.GetLastDump() != nil {
			dump = age(c.now().Sub(h.GetLastDump().AsTime())) + " ago"
		}
		t.add([]cell{
			{text: strings.TrimPrefix(h.GetPort()+" "+h.GetName(), " ")},
			{text: choose(h.GetHealthy(), "healthy", "error"), style: choose(h.GetHealthy(), green, red)},
			{text: fmt.Sprint(h.GetErrors())},
			{text: fmt.Sprint(h.GetRecoveries())},
			{text: dump},
		})
	}
	t.flush()
}

// watchDevicesCommand shows changes of devices, functions and pools.
func (c *cli) watchDevicesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "devices", Aliases: []string{"device"}, Short: "show devices, functions and pools and then their changes, until interrupted", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := c.stream(cmd.Context(), func(d daemon) error {
				stream, err := d.devices.WatchDevices(d.ctx, &offloadv1.WatchDevicesRequest{})
				if err != nil {
					return client.Error(err)
				}
				return received(stream.Recv, c.deviceEvents())
			})
			if cmd.Context().Err() != nil {
				return nil // it was interrupted, as it is meant to be
			}
			return err
		},
	}
}

// deviceEvents returns what prints the events of a watch, as portEvents does.
func (c *cli) deviceEvents() func(*offloadv1.WatchDevicesResponse) error {
	t := table{c: c, widths: []int{len("changed"), len("function")}}
	if !c.noHeaders {
		t.heading = []cell{{text: "EVENT"}, {text: "WHAT"}, {text: "NAME"}, {text: "STATE"}}
	}
	return func(e *offloadv1.WatchDevicesResponse) error {
		if c.structured() {
			return c.printEvent(e)
		}
		event := strings.ToLower(strings.TrimPrefix(e.GetType().String(), "EVENT_TYPE_"))
		switch {
		case e.GetType() == offloadv1.EventType_EVENT_TYPE_LOST:
			t.flush()
			fmt.Fprintln(c.stdout, "LOST changes; everything anew:")
		case e.GetItem() != nil:
			what, name, state := deviceEvent(e)
			t.add([]cell{{text: event}, {text: what}, {text: name}, {text: state}})
		}
		if e.GetType() != offloadv1.EventType_EVENT_TYPE_EXISTS { // until all are known, so that they are aligned
			t.flush()
		}
		return nil
	}
}

func deviceEvent(e *offloadv1.WatchDevicesResponse) (what, name, state string) {
	var words []string
	say := func(format, value string) {
		if value != "" {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	switch {
	case e.GetDevice() != nil:
		d := e.GetDevice()
		what, name = "device", d.GetHandle()
		say("%s", eswitchText(d.GetMode()))
		say("%s", fmt.Sprintf("%d VFs", d.GetVfs()))
		say("%s", d.GetDoing())
		say("%s", d.GetReason())
	case e.GetFunction() != nil:
		f := e.GetFunction()
		what, name = "function", cmp.Or(f.GetPort(), f.GetParent())+" "+functionText(f)
		say("%s", functionStateText(f.GetState()))
		say("by %s", f.GetOwner())
		say("%s", f.GetReason())
	case e.GetPool() != nil:
		p := e.GetPool()
		what, name = "pool", p.GetName()
		states := sortedKeys(p.GetCounts())
		slices.Sort(states)
		for _, s := range states {
			say("%s", fmt.Sprintf("%d %s", p.GetCounts()[s], strings.ToLower(s)))
		}
		say("%s", p.GetReason())
	}
	return what, name, strings.Join(words, ", ")
}

// completeDevices completes the handle of a device, or the name of a PF's network device.
func (c *cli) completeDevices(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(cmd.Context(), begun, func(d daemon, add func(string)) error {
		return pages(func(token string) ([]*offloadv1.Device, string, error) {
			r, err := d.devices.ListDevices(d.ctx, &offloadv1.ListDevicesRequest{PageToken: token})
			return r.GetDevices(), r.GetNextPageToken(), err
		}, func(dev *offloadv1.Device) error {
			add(dev.GetHandle())
			add(dev.GetUplink())
			return nil
		})
	})
}

// completeFunctions completes what names a function.
func (c *cli) completeFunctions(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(cmd.Context(), begun, func(d daemon, add func(string)) error {
		return d.eachFunction(func(f *offloadv1.Function) error {
			add(f.GetPort())
			add(f.GetDevice())
			add(f.GetRepresentor())
			return nil
		})
	})
}

func (d daemon) eachFunction(f func(*offloadv1.Function) error) error {
	return pages(func(token string) ([]*offloadv1.Function, string, error) {
		r, err := d.devices.ListFunctions(d.ctx, &offloadv1.ListFunctionsRequest{PageToken: token})
		return r.GetFunctions(), r.GetNextPageToken(), err
	}, f)
}

// findFunction returns the port of the function that a port, a device in sysfs or a representor means.
func (d daemon) findFunction(name string) (string, error) {
	found := ""
	err := d.eachFunction(func(f *offloadv1.Function) error {
		if name == f.GetPort() || name == f.GetDevice() || name == f.GetRepresentor() {
			found = f.GetPort()
		}
		return nil
	})
	if err == nil && found == "" {
		err = notFound{fmt.Errorf("no function %q on this node; see offloadctl functions", name)}
	}
	return found, err
}
