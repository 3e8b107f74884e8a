// Benchtc measures what the pipeline costs as TC filters: how many there are, how long pkg/specialize takes, how long they take to
// install beside tc -batch with the same filters in the same kernel, and what one ACL and one port cost afterwards.
//
// It needs root and a kernel with flower: `make bench-tc` runs it in a guest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/offloadd/offloadd/integration/parity/content"
	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchtc:", err)
		os.Exit(1)
	}
}

// size is how much there is of everything.
type size struct{ ports, switches, remote, acls, chassis int }

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("benchtc", flag.ContinueOnError)
	var s size
	flags.IntVar(&s.ports, "ports", 100, "local ports")
	flags.IntVar(&s.switches, "switches", 10, "switches, at most 250, all behind one router")
	flags.IntVar(&s.remote, "remote", 1000, "ports on other chassis")
	flags.IntVar(&s.acls, "acls", 500, "ACLs that allow traffic")
	flags.IntVar(&s.chassis, "chassis", 10, "other chassis, at most 250")
	rounds := flags.Int("rounds", 3, "how often filters are installed, by each")
	if err := flags.Parse(args); err != nil {
		return err
	}
	begin := time.Now()
	t, err := topology.Make(s.content())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d local ports, %d switches, 1 router, %d remote ports on %d chassis, %d ACLs: logical flows compiled in %v\n",
		len(t.Ports), s.switches, s.remote, s.chassis, s.acls, time.Since(begin).Round(time.Second))
	b, err := newBench(t)
	if err != nil {
		return err
	}
	b.out = out
	b.describe()
	if err := b.install(ctx, *rounds); err != nil {
		return err
	}
	return b.increments(ctx)
}

// content is the Northbound.
func (s size) content() content.Content {
	var nb, sb strings.Builder
	c := content.Content{Name: fmt.Sprintf("bench-%d-%d-%d-%d", s.ports, s.switches, s.remote, s.acls), About: "a large chassis"}
	fmt.Fprintln(&nb, "lr-add lr0")
	for i := range s.chassis {
		fmt.Fprintf(&sb, "chassis-add hv%d geneve 172.31.1.%d\nset chassis hv%[1]d other_config:port-up-notif=true other_config:ct-no-masked-label=true\n", i, i+1)
	}
	var locals []string
	for i := range s.switches {
		sw, net := fmt.Sprintf("sw%d", i), i+1
		fmt.Fprintf(&nb, "ls-add %s\nlrp-add lr0 lr0-%[1]s 0a:00:00:00:%02[2]x:fe 10.%[2]d.0.254/24 fd%02[2]x::fe/64\n", sw, net)
		fmt.Fprintf(&nb, "lsp-add %[1]s %[1]s-lr0\nlsp-set-type %[1]s-lr0 router\nlsp-set-addresses %[1]s-lr0 router\nlsp-set-options %[1]s-lr0 router-port=lr0-%[1]s\n", sw)
		var members []string
		for n := range s.ports/s.switches + s.remote/s.switches {
			name := fmt.Sprintf("r%d-%d", i, n)
			if n < s.ports/s.switches {
				name = fmt.Sprintf("p%d-%d", i, n)
				locals = append(locals, name)
			} else {
				fmt.Fprintf(&sb, "lsp-bind %s hv%d\n", name, n%s.chassis)
			}
			members = append(members, name)
			fmt.Fprintf(&nb, "lsp-add %s %s\nlsp-set-addresses %[2]s \"0a:00:00:00:%02[3]x:%02[4]x 10.%[3]d.0.%[4]d fd%02[3]x::%[4]x\"\n", sw, name, net, n+1)
		}
		fmt.Fprintf(&nb, "pg-add pg%d %s\n", i, strings.Join(members, " "))
		fmt.Fprintf(&nb, "acl-add pg%d from-lport 1001 \"inport == @pg%[1]d && ip\" allow-related\n", i)
		fmt.Fprintf(&nb, "acl-add pg%d to-lport 900 \"outport == @pg%[1]d && ip\" drop\n", i)
		for n := range s.acls / s.switches {
			fmt.Fprintf(&nb, "acl-add pg%d to-lport %d \"outport == @pg%[1]d && ip4.src == 10.%[3]d.0.0/24 && tcp.dst == %[4]d\" allow-related\n",
				i, 1001+n%5, 1+(i+n)%s.switches, 1000+n)
		}
	}
	c.NB, c.SB, c.Local = nb.String(), sb.String(), locals
	return c
}

// A bench is a program, its rules, and devices for them.
type bench struct {
	out     io.Writer
	rules   *specialize.Rules
	in      specialize.Input
	devices []specialize.Device
	program *specialize.Program
	filters []tc.Filter
	t       *topology.Topology
}

func newBench(t *topology.Topology) (*bench, error) {
	b := &bench{t: t}
	b.rules, b.in = t.Specialize()
	devices := []*specialize.Device{b.in.TunnelDevice}
	for i := range b.in.Ports {
		devices = append(devices, &b.in.Ports[i].Device)
	}
	for _, d := range devices {
		made, err := device(d.Name)
		if err != nil {
			return nil, err
		}
		*d = made
		b.devices = append(b.devices, made)
	}
	for i := range b.in.Tunnels {
		b.in.Tunnels[i].Local = netip.Addr{} // the default: the kernel chooses it
	}
	return b, nil
}

// device makes a device.
func device(name string) (specialize.Device, error) {
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(link); err != nil {
		return specialize.Device{}, fmt.Errorf("device %s: %w", name, err)
	}
	made, err := netlink.LinkByName(name)
	if err != nil {
		return specialize.Device{}, err
	}
	return specialize.Device{Name: name, Ifindex: made.Attrs().Index}, nil
}

// specialise makes the filters, and returns how long that took.
func (b *bench) specialise(in specialize.Input) (made, lowered time.Duration) {
	begin := time.Now()
	b.program = b.rules.Specialize(in)
	made = time.Since(begin)
	begin = time.Now()
	b.filters = b.filters[:0]
	for _, f := range b.program.Filters() {
		b.filters = append(b.filters, f.Filter)
	}
	return made, time.Since(begin)
}

// describe prints what there is of filters.
func (b *bench) describe() {
	var made, lowered []time.Duration
	for range 3 {
		b.rules, _ = b.t.Specialize() // which remembers nothing
		x, y := b.specialise(b.in)
		made, lowered = append(made, x), append(lowered, y)
	}
	pairs, masks, chains := map[tc.Key]bool{}, map[string]bool{}, map[uint32]bool{}
	for i := range b.filters {
		f := &b.filters[i]
		at := tc.Key{Chain: f.Chain, Pref: f.Pref}
		pairs[at], chains[f.Chain] = true, true
		mask := fmt.Append(nil, at, f.Indev != "", f.EncDstPort != 0)
		for _, t := range f.Match {
			mask = fmt.Append(mask, t.Field, t.Mask)
		}
		masks[string(mask)] = true
	}
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "filters\t%d\t%.1f per local port\n", len(b.filters), float64(len(b.filters))/float64(len(b.in.Ports)))
	fmt.Fprintf(w, "chains\t%d\tfor %d states\n", len(chains), len(b.program.States))
	fmt.Fprintf(w, "(chain, pref) pairs\t%d\n", len(pairs))
	fmt.Fprintf(w, "masks\t%d\tin all pairs\n", len(masks))
	fmt.Fprintf(w, "time to specialise\t%v\tmedian of 3, and %v to lower\n", median(made), median(lowered))
	_ = w.Flush()
	if err := tc.Check(b.filters); err != nil {
		fmt.Fprintln(b.out, "the filters are not legal:", err)
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2].Round(100 * time.Microsecond)
}

// install installs the filters by turns with apply.Filters, with tc.Conn alone, and with tc -batch.
func (b *bench) install(ctx context.Context, rounds int) error {
	var ours, plain, theirs []time.Duration
	typed := b.filters[:0]
	for _, f := range b.filters {
		if typeable(&f) {
			typed = append(typed, f)
		}
	}
	if n := len(b.filters) - len(typed); n > 0 {
		fmt.Fprintf(b.out, "%d filters are left out of the comparison: tc has no words for IPv6 masks that are no prefixes\n", n)
	}
	b.filters = typed
	batch, err := b.batch()
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(batch) }()
	for range rounds {
		f := apply.NewFilters(slog.New(slog.DiscardHandler), nil)
		begin := time.Now()
		s, err := f.Sync(ctx, b.filters, b.devices, apply.SyncOptions{})
		if err != nil {
			return err
		}
		ours = append(ours, time.Since(begin))
		if len(s.Refused) > 0 {
			return fmt.Errorf("the kernel refuses %d filters, the first: %s: %w", len(s.Refused), s.Refused[0].What, s.Refused[0].Err)
		}
		if err := errors.Join(f.Close(), b.empty(ctx)); err != nil {
			return err
		}
		if err := b.bind(ctx); err != nil {
			return err
		}
		took, err := b.alone(ctx)
		if err != nil {
			return err
		}
		plain = append(plain, took)
		if err := errors.Join(b.empty(ctx), b.bind(ctx)); err != nil {
			return err
		}
		begin = time.Now()
		if out, err := exec.CommandContext(ctx, "tc", "-batch", batch).CombinedOutput(); err != nil {
			return fmt.Errorf("tc -batch: %w: %.500s", err, out)
		}
		theirs = append(theirs, time.Since(begin))
		if err := b.empty(ctx); err != nil {
			return err
		}
	}
	rate := func(d time.Duration) string {
		return fmt.Sprintf("%.0f filters/s", float64(len(b.filters))/d.Seconds())
	}
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "installed by\tmedian of %d\t\tratio\n", rounds)
	for _, x := range []struct {
		name string
		d    []time.Duration
	}{{"apply.Filters, with binding and planning", ours}, {"tc.Conn alone", plain}, {"tc -batch", theirs}} {
		fmt.Fprintf(w, "%s\t%v\t%s\t%.2f\n", x.name, median(x.d), rate(median(x.d)), median(x.d).Seconds()/median(theirs).Seconds())
	}
	return w.Flush()
}

// typeable reports whether one can write the filter for tc.
func typeable(f *tc.Filter) bool {
	return !slices.ContainsFunc(f.Match, func(t ir.Term) bool {
		v6 := t.Field == ir.IPv6Src || t.Field == ir.IPv6Dst
		return v6 && t.Mask.OnesCount()+t.Mask.TrailingZeros() != 128
	})
}

// batch writes the file for tc -batch.
func (b *bench) batch() (string, error) {
	f, err := os.CreateTemp("", "benchtc")
	if err != nil {
		return "", err
	}
	var text strings.Builder
	names := map[int]string{}
	for _, d := range b.devices {
		names[d.Ifindex] = d.Name
	}
	for i := range b.filters {
		fmt.Fprintf(&text, "filter add block %d %s\n", apply.Block, b.filters[i].Args(func(ifindex int) string { return names[ifindex] }))
	}
	_, err = f.WriteString(text.String())
	return f.Name(), errors.Join(err, f.Close())
}

// bind gives all devices the block, empty unbinds them, which ends the block.
func (b *bench) bind(ctx context.Context) error {
	return b.each(func(c *tc.Conn, d specialize.Device) error { return c.EnsureClsact(ctx, d.Ifindex, apply.Block) })
}

func (b *bench) empty(ctx context.Context) error {
	return b.each(func(c *tc.Conn, d specialize.Device) error { return c.DeleteClsact(ctx, d.Ifindex) })
}

func (b *bench) each(do func(*tc.Conn, specialize.Device) error) error {
	c, err := tc.Dial(tc.DialOptions{})
	if err != nil {
		return err
	}
	for _, d := range b.devices {
		err = errors.Join(err, do(c, d))
	}
	return errors.Join(err, c.Close())
}

// alone adds the filters in the order of tc -batch.
func (b *bench) alone(ctx context.Context) (time.Duration, error) {
	c, err := tc.Dial(tc.DialOptions{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	ops := make([]tc.Op, len(b.filters))
	for i := range b.filters {
		ops[i] = tc.AddOp(&b.filters[i])
	}
	begin := time.Now()
	refused, err := c.Apply(ctx, tc.Target{Block: apply.Block}, ops)
	took := time.Since(begin)
	if err == nil && len(refused) > 0 {
		err = &refused[0]
	}
	return took, err
}

// increments measures what one ACL less, and one port more, cost when everything is installed.
func (b *bench) increments(ctx context.Context) error {
	f := apply.NewFilters(slog.New(slog.DiscardHandler), nil)
	defer func() { _ = f.Close() }()
	all := b.in.Ports
	fewer := b.in
	fewer.Ports = slices.Clone(all)
	fewer.Ports[len(all)-1].Enter = false
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "afterwards\tspecialised in\tinstalled in\toperations")
	step := func(name string, in specialize.Input) error {
		made, lowered := b.specialise(in)
		begin := time.Now()
		s, err := f.Sync(ctx, b.filters, b.devices, apply.SyncOptions{})
		if err == nil && name != "" {
			fmt.Fprintf(w, "%s\t%v\t%v\t%d\n", name, (made + lowered).Round(100*time.Microsecond), time.Since(begin).Round(100*time.Microsecond), s.Changed)
		}
		return err
	}
	if err := errors.Join(step("", fewer), step("one port more", b.in)); err != nil {
		return err
	}
	owner, rules := b.anACL()
	b.rules.Replace(owner, nil)
	if err := step("one ACL less", b.in); err != nil {
		return err
	}
	b.rules.Replace(owner, rules)
	if err := step("one ACL more", b.in); err != nil {
		return err
	}
	return errors.Join(w.Flush(), b.empty(ctx))
}

// anACL returns the owner of rules that allow traffic to a TCP port to local ports.
func (b *bench) anACL() (specialize.Owner, []ir.Rule) {
	for _, o := range b.t.Owned {
		for _, r := range o.Rules {
			if t, ok := r.Match.Term(ir.TCPDst); ok && r.Table >= compile.TableEgress && t.Value == ir.U64(1001) && len(r.Actions) > 0 {
				return specialize.Owner(o.Owner), o.Rules
			}
		}
	}
	panic("benchtc: no ACL for TCP port 1001")
}
