package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"sigs.k8s.io/yaml"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const probeHelp = `The probe measures what packets cost on different paths: it builds them in network namespaces of its own, and removes them. What it compares, how,
and how to read it is in docs/probe.md.

With --local no daemon is needed: the program does it by itself, as root.`

const probeStateDir = "/var/lib/offloadd"

// A prober is a command of the probe, with the daemon or without.
type prober struct {
	c        *cli
	local    bool
	stateDir string
}

func (c *cli) probeCommand() *cobra.Command {
	p := &prober{c: c}
	cmd := group("probe", "measure what packets cost on paths of many kinds, and compare them")
	cmd.Long = probeHelp
	cmd.PersistentFlags().BoolVar(&p.local, "local", false, "do it without the daemon")
	cmd.PersistentFlags().StringVar(&p.stateDir, "state-dir", probeStateDir, "with --local, the `directory` of runs")
	cmd.AddCommand(p.runCommand(), p.portCommand(), p.startCommand(), p.kindsCommand(), p.runsCommand(), p.reportCommand(), p.diffCommand(), p.cleanCommand(), p.watchCommand())
	return cmd
}

// with calls do with what serves the probe. Calls are not limited but by ctx.
func (p *prober) with(ctx context.Context, do func(daemon) error) error {
	if p.local {
		end, err := p.c.local(p.stateDir)
		if err != nil {
			return err
		}
		defer end()
	}
	return p.c.stream(ctx, do)
}

// within is with for calls that together may take --timeout, or if the user does not say it, so long.
func (p *prober) within(cmd *cobra.Command, long time.Duration, do func(daemon) error) error {
	if !cmd.Flags().Changed("timeout") {
		p.c.timeout = long
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), p.c.timeout)
	defer cancel()
	return p.with(ctx, do)
}

// shortly is how long calls take that do not measure: a run of many megabytes is read, or much is removed.
const shortly = time.Minute

// outputs are the files that a report is written to, besides what is printed.
type outputs struct{ html, png, as string }

func (o *outputs) files(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.html, "html", "", "also write a page, in one `file`")
	cmd.Flags().StringVar(&o.png, "png", "", "also draw percentiles into a `file`; for a second load into FILE-2, and so on")
}

func (o *outputs) flags(cmd *cobra.Command) {
	o.files(cmd)
	cmd.Flags().StringVar(&o.as, "as", "", "show it in the tables of a `study`, beside its numbers: "+strings.Join(studyNames(), ", "))
	mustComplete(cmd, "as", studyNames()...)
}

func (o *outputs) check() error {
	if o.as == "" {
		return nil
	}
	if _, err := report.StudyOf(o.as); err != nil {
		return usageError{fmt.Errorf("--as %q: none of %s", o.as, strings.Join(studyNames(), ", "))}
	}
	return nil
}

func studyNames() []string {
	var names []string
	for _, s := range report.Studies() {
		names = append(names, s.Name)
	}
	return names
}

// show prints runs, and writes what else is wanted of them.
func (p *prober) show(texts [][]byte, o outputs) error {
	var runs []*result.Run
	for _, text := range texts {
		run, err := report.Read(text)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	c := p.c
	switch {
	case c.format == "json":
		for _, text := range texts {
			fmt.Fprintf(c.stdout, "%s", text)
		}
	case c.format == "yaml":
		for _, text := range texts {
			y, err := yaml.JSONToYAML(text)
			if err != nil {
				return fmt.Errorf("yaml: %w", err)
			}
			fmt.Fprintf(c.stdout, "---\n%s", y)
		}
	case o.as != "":
		study, err := report.StudyOf(o.as)
		if err != nil {
			return err
		}
		fmt.Fprint(c.stdout, study.Text(runs...))
	default:
		width := c.width
		if c.format == "wide" {
			width = 0
		}
		for _, run := range runs {
			fmt.Fprint(c.stdout, report.Text(run, width))
		}
	}
	return p.write(runs, o)
}

// write writes the files.
func (p *prober) write(runs []*result.Run, o outputs) error {
	if o.html != "" {
		page, err := report.HTML(runs...)
		if err != nil {
			return err
		}
		if err := p.writeFile(o.html, []byte(page)); err != nil {
			return err
		}
	}
	if o.png == "" {
		return nil
	}
	pictures := 0
	for _, run := range runs {
		if run.Starts != nil {
			return usageError{fmt.Errorf("--png: of starts, as run %s is of, there is no picture: --html has them", run.ID)}
		}
		for _, l := range run.Parameters.Loads {
			if l.Mode == result.Stream || l.Mode == result.Maerts {
				continue // they have no percentiles
			}
			picture, err := report.PNG(run, l)
			if err != nil {
				return err
			}
			if err := p.writeFile(numbered(o.png, pictures), picture); err != nil {
				return err
			}
			pictures++
		}
	}
	return nil
}

func (p *prober) writeFile(name string, text []byte) error {
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(p.c.stderr, "written: %s\n", name)
	return nil
}

// numbered is the file of the nth of several, from 0.
func numbered(file string, n int) string {
	if n == 0 {
		return file
	}
	ext := filepath.Ext(file)
	return fmt.Sprintf("%s-%d%s", strings.TrimSuffix(file, ext), n+1, ext)
}

// runFlags are those of probe run.
type runFlags struct {
	kinds            []string
	baseline         string
	mode, transport  string
	sizes            []int
	answer           int
	rate             float64
	under            []string
	count, sessions  int
	burst            int
	duration, margin time.Duration
	warmup, lostIn   time.Duration
	delay, jitter    time.Duration
	loss             float64
	busy, fresh      bool
	segments         bool
	priority         int
	clientCPU        int
	serverCPU        int
	seed             uint64
	outputs
}

var (
	modes = map[string]offloadv1.ProbeMode{
		"rr": offloadv1.ProbeMode_PROBE_MODE_RR, "open": offloadv1.ProbeMode_PROBE_MODE_OPEN, "crr": offloadv1.ProbeMode_PROBE_MODE_CRR,
		"stream": offloadv1.ProbeMode_PROBE_MODE_STREAM, "maerts": offloadv1.ProbeMode_PROBE_MODE_MAERTS,
	}
	transports = map[string]offloadv1.ProbeTransport{
		"udp": offloadv1.ProbeTransport_PROBE_TRANSPORT_UDP, "tcp": offloadv1.ProbeTransport_PROBE_TRANSPORT_TCP,
	}
)

const runHelp = `Measure paths, and compare each with the baseline.

KIND is one of "offloadctl probe kinds", with options behind commas: --kinds metal,veth,routed,rules=200,macvlan. What cannot be built here
is listed with the reason. A table's signs: = equivalent, + slower, - faster, ? undecided, ~ no verdict.`

func (p *prober) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "measure paths, and compare each with the baseline",
		Long:  runHelp,
		Example: `  offloadctl probe run --kinds metal,macvlan,routed,flannel-vxlan
  offloadctl probe run --kinds all --sizes 64,1024 --html report.html
  offloadctl probe run --kinds metal,hostgw --mode open --rate 5000 --transport tcp --duration 2s
  offloadctl probe run --kinds metal,hostgw,flannel-vxlan --transport tcp --sizes 350 --under 0,30%,50%
  offloadctl probe run --as deitcher`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			specs, err := f.specs(cmd)
			if err != nil {
				return err
			}
			var texts [][]byte
			for _, spec := range specs {
				err := p.within(cmd, probe.MaxTime+shortly, func(d daemon) error {
					text, err := p.run(d, spec)
					texts = append(texts, text)
					return err
				})
				if err != nil {
					return err
				}
			}
			return p.show(texts, f.outputs)
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&f.kinds, "kinds", nil, "`paths` to measure, or all (default all, or those of the study)")
	fs.StringVar(&f.baseline, "baseline", "", "`path` that others are compared with (default the first, or metal)")
	fs.IntSliceVar(&f.sizes, "sizes", nil, "`octets` of a request, several for a load each (default 64,300,350,500,1024,2048,4096, or one load with another mode or with --under)")
	fs.StringVar(&f.mode, "mode", "rr", "`mode`: rr, open, crr, stream or maerts")
	fs.StringSliceVar(&f.under, "under", nil, "with --mode rr or crr, `parts` of what a path carries at most that a stream of TCP has meanwhile, several for a load each: 0,30%,50%; 0 is no stream")
	fs.StringVar(&f.transport, "transport", "", "`protocol`: udp or tcp (default udp, tcp with crr)")
	fs.DurationVar(&f.delay, "delay", 0, "`time` that the wire between two nodes takes, in each direction")
	fs.DurationVar(&f.jitter, "jitter", 0, "by how much that `time` varies")
	fs.Float64Var(&f.loss, "loss", 0, "`part` that the wire loses, from 0 to 0.5")
	fs.BoolVar(&f.fresh, "fresh", false, "make new devices for each session")
	fs.BoolVar(&f.segments, "segments", true, "measure the kernel's part of the way of UDP requests, in sessions of their own")
	f.measuring(cmd)
	f.flags(cmd)
	mustComplete(cmd, "mode", sortedKeys(modes)...)
	mustComplete(cmd, "transport", "udp", "tcp")
	mustComplete(cmd, "kinds", append([]string{"all"}, kindNames()...)...)
	mustComplete(cmd, "baseline", kindNames()...)
	return cmd
}

// measuring adds the flags that say how is measured.
func (f *runFlags) measuring(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.IntVar(&f.answer, "answer", 0, "`octets` of an answer (default those of the request)")
	fs.Float64Var(&f.rate, "rate", 0, "with --mode open, `requests` per second on each path")
	fs.IntVar(&f.count, "count", 0, "`requests` on each path of each load, in all sessions together (default 50000)")
	fs.DurationVar(&f.duration, "duration", 0, "`time` of each path in each session, instead of a count")
	fs.IntVar(&f.sessions, "sessions", 0, "`number` of sessions; verdicts take 6 (default 10)")
	fs.IntVar(&f.burst, "burst", 0, "`requests` before the next path has its turn (default 20)")
	fs.DurationVar(&f.warmup, "warmup", 0, "`time` before measuring in each session (default 200ms)")
	fs.DurationVar(&f.lostIn, "lost-after", 0, "`time` after which a request is lost (default 1s)")
	fs.BoolVar(&f.busy, "busy", false, "poll instead of sleeping; it uses two CPUs")
	fs.IntVar(&f.priority, "priority", 0, "`priority` of SCHED_FIFO, 0 is none (default 10 unless polling leaves no CPU to others)")
	fs.IntVar(&f.clientCPU, "client-cpu", 0, "the client's `CPU` (default chosen)")
	fs.IntVar(&f.serverCPU, "server-cpu", 0, "the server's `CPU` (default chosen)")
	fs.DurationVar(&f.margin, "margin", 0, "differences up to this `time` do not matter")
	fs.Uint64Var(&f.seed, "seed", 0, "`number` for what is random (default random)")
}

func kindNames() []string {
	var names []string
	for _, k := range path.Kinds() {
		names = append(names, k.Name)
	}
	return names
}

// specs are what the flags ask for: one run, or one for each circuit of a study.
func (f *runFlags) specs(cmd *cobra.Command) ([]*offloadv1.ProbeSpec, error) {
	spec, err := f.spec(cmd)
	if err != nil || f.as == "" || spec.GetWire() != nil {
		return []*offloadv1.ProbeSpec{spec}, err
	}
	study, err := report.StudyOf(f.as)
	if err != nil || len(study.Circuits) == 0 {
		return []*offloadv1.ProbeSpec{spec}, err
	}
	var specs []*offloadv1.ProbeSpec
	for _, circuit := range study.Circuits {
		s, err := f.spec(cmd)
		if err != nil {
			return nil, err
		}
		w := circuit.Wire()
		s.Wire = &offloadv1.ProbeWire{Delay: durationpb.New(w.Delay), Jitter: durationpb.New(w.Jitter), Loss: w.Loss}
		specs = append(specs, s)
	}
	return specs, nil
}

func (f *runFlags) spec(cmd *cobra.Command) (*offloadv1.ProbeSpec, error) {
	said := cmd.Flags().Changed
	for _, n := range []struct {
		flag  string
		value int
	}{{"count", f.count}, {"sessions", f.sessions}, {"burst", f.burst}, {"answer", f.answer}, {"priority", f.priority}, {"client-cpu", f.clientCPU}, {"server-cpu", f.serverCPU}} {
		if n.value < 0 || n.value > 1<<31-1 {
			return nil, usageError{fmt.Errorf("--%s %d: not from 0 to %d", n.flag, n.value, 1<<31-1)}
		}
	}
	s := &offloadv1.ProbeSpec{
		Paths: joinOptions(f.kinds), Baseline: f.baseline, Study: f.as, Sessions: uint32(f.sessions), Count: uint32(f.count), Burst: uint32(f.burst),
		Warmup: optional(f.warmup), Timeout: optional(f.lostIn), Busy: f.busy, Segments: f.segments, Fresh: f.fresh, Margin: optional(f.margin), Seed: f.seed,
	}
	if len(s.Paths) == 1 && s.Paths[0] == "all" {
		s.Paths = nil
		if f.as != "" {
			s.Paths = kindNames()
		}
	}
	if f.delay != 0 || f.jitter != 0 || f.loss != 0 {
		s.Wire = &offloadv1.ProbeWire{Delay: optional(f.delay), Jitter: optional(f.jitter), Loss: f.loss}
	}
	for _, o := range []struct {
		flag  string
		value int
		to    **uint32
	}{{"priority", f.priority, &s.Priority}, {"client-cpu", f.clientCPU, &s.ClientCpu}, {"server-cpu", f.serverCPU, &s.ServerCpu}} {
		if said(o.flag) {
			n := uint32(o.value)
			*o.to = &n
		}
	}
	switch own := said("mode") || said("sizes") || said("transport") || said("answer") || said("under"); {
	case f.as == "" || own:
		return s, f.loads(s)
	case said("duration") || said("rate"):
		return s, f.studyLoads(s)
	}
	return s, nil
}

// studyLoads adds the loads of the study, with another duration or rate.
func (f *runFlags) studyLoads(s *offloadv1.ProbeSpec) error {
	study, err := report.StudyOf(f.as)
	if err != nil {
		return usageError{err}
	}
	for _, l := range study.Loads {
		m := &offloadv1.ProbeLoad{
			Mode: modes[l.Mode], Transport: transports[l.Transport], Size: uint32(l.Size), Answer: uint32(l.Answer), Rate: l.Rate, Duration: optional(cmp.Or(f.duration, l.Duration)),
		}
		if f.rate != 0 && l.Rate != 0 {
			m.Rate = f.rate
		}
		if !slices.ContainsFunc(s.Loads, func(o *offloadv1.ProbeLoad) bool { return proto.Equal(o, m) }) { // with one rate loads may become the same
			s.Loads = append(s.Loads, m)
		}
	}
	return nil
}

// loads fills in the loads.
func (f *runFlags) loads(s *offloadv1.ProbeSpec) error {
	mode, ok := modes[f.mode]
	if !ok {
		return usageError{fmt.Errorf("--mode %q: none of %s", f.mode, strings.Join(sortedKeys(modes), ", "))}
	}
	transport, ok := transports[f.transport]
	if !ok && f.transport != "" {
		return usageError{fmt.Errorf("--transport %q: neither udp nor tcp", f.transport)}
	}
	sizes := f.sizes
	switch {
	case len(sizes) > 0:
	case f.mode == "rr" && len(f.under) == 0:
		sizes = probe.DefaultSizes()
	case f.mode == "stream" || f.mode == "maerts":
		sizes = []int{1400}
	default:
		sizes = []int{64}
	}
	parts := []float64{0}
	if len(f.under) > 0 {
		parts = nil
	}
	for _, text := range f.under {
		part, err := parsePart(text)
		if err != nil {
			return usageError{fmt.Errorf("--under %w", err)}
		}
		parts = append(parts, part)
	}
	for _, size := range sizes {
		if size < 1 || size > 1<<31-1 {
			return usageError{fmt.Errorf("--sizes %d: not a size", size)}
		}
		for _, part := range parts {
			s.Loads = append(s.Loads, &offloadv1.ProbeLoad{
				Mode: mode, Transport: transport, Size: uint32(size), Answer: uint32(f.answer), Rate: f.rate, Duration: optional(f.duration), Under: part,
			})
		}
	}
	return nil
}

// parsePart reads a part of the whole: "30%", or "0.3".
func parsePart(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	part, err := strconv.ParseFloat(number, 64)
	if percent {
		part /= 100
	}
	if err != nil || !(0 <= part && part <= 1) {
		return 0, fmt.Errorf("%q: neither a percentage, as 30%%, nor a part from 0 to 1", text)
	}
	return part, nil
}

func optional(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// joinOptions puts options of a path behind it again: a list is cut at each comma.
func joinOptions(words []string) []string {
	var paths []string
	for _, w := range words {
		if n := len(paths); n > 0 && (strings.Contains(w, "=") || w == path.OptionTwin) {
			paths[n-1] += "," + w
		} else {
			paths = append(paths, w)
		}
	}
	return paths
}

// run makes a run, and shows how far it is meanwhile.
func (p *prober) run(d daemon, spec *offloadv1.ProbeSpec) ([]byte, error) {
	stream, err := d.probe.Run(d.ctx, &offloadv1.RunRequest{Spec: spec})
	if err != nil {
		return nil, client.Error(err)
	}
	return follow(p, stream.Recv)
}

// follow shows how far a run is, and returns it at the end.
func follow[T interface {
	GetProgress() *offloadv1.ProbeProgress
	GetRun() []byte
}](p *prober, receive func() (T, error)) (text []byte, err error) {
	line := progressLine{c: p.c, begun: p.c.now()}
	defer line.end()
	err = received(receive, func(m T) error {
		if m.GetProgress() != nil {
			line.show(m.GetProgress())
		}
		return appendBounded(&text, m.GetRun())
	})
	return text, err
}

// appendBounded adds a part of a run.
func appendBounded(text *[]byte, part []byte) error {
	if len(*text)+len(part) > report.MaxOctets {
		return fmt.Errorf("the run has more than %d octets", report.MaxOctets)
	}
	*text = append(*text, part...)
	return nil
}

// A progressLine is one on a terminal that is written again and again.
type progressLine struct {
	c     *cli
	begun time.Time
	shown bool
}

func (l *progressLine) show(p *offloadv1.ProbeProgress) {
	if !l.c.live {
		return
	}
	l.shown = true
	text := fmt.Sprintf("%3.0f %%  ", 100*p.GetFraction())
	if p.GetSession() > 0 {
		text += fmt.Sprintf("session %d of %d, ", p.GetSession(), p.GetSessions())
	}
	text += p.GetDoing()
	if took := l.c.now().Sub(l.begun); p.GetFraction() > 0.02 {
		left := time.Duration(float64(took) * (1 - p.GetFraction()) / p.GetFraction())
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	fmt.Fprintf(l.c.stderr, "\r%s\x1b[K", text) // EL of ECMA-48: what was there is gone
}

func (l *progressLine) end() {
	if l.shown {
		fmt.Fprint(l.c.stderr, "\r\x1b[K")
	}
}

var pathKindColumns = []column[*offloadv1.PathKind]{
	{name: "KIND", value: (*offloadv1.PathKind).GetName},
	{name: "NODES", value: func(k *offloadv1.PathKind) string { return orDash(k.GetNodes()) }},
	{name: "STANDS FOR", value: func(k *offloadv1.PathKind) string { return cmp.Or(strings.Join(k.GetStandsFor(), ", "), "-") }},
	{name: "NEEDS", value: func(k *offloadv1.PathKind) string { return cmp.Or(k.GetNeeds(), "-") }},
	{name: "OPTIONS", wide: true, value: func(k *offloadv1.PathKind) string { return cmp.Or(strings.Join(k.GetOptions(), " "), "-") }},
	{name: "A PACKET PASSES", wide: true, value: (*offloadv1.PathKind).GetPasses},
}

func (p *prober) kindsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kinds",
		Short: "list the kinds of paths",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := newList(p.c, "PathKindList", pathKindColumns)
			return p.within(cmd, shortly, func(d daemon) error {
				r, err := d.probe.ListPathKinds(d.ctx, &offloadv1.ListPathKindsRequest{})
				if err != nil {
					return client.Error(err)
				}
				return printed(l, r.GetKinds())
			})
		},
	}
}

// printed prints all of a list.
func printed[T proto.Message](l *list[T], items []T) error {
	for _, item := range items {
		if err := l.add(item); err != nil {
			return err
		}
	}
	l.end()
	return nil
}

func (p *prober) runsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "runs",
		Short: "list the runs that are kept",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := p.c
			l := newList(c, "ProbeRunList", []column[*offloadv1.ProbeRun]{
				{name: "ID", value: (*offloadv1.ProbeRun).GetId},
				{name: "AGE", value: func(r *offloadv1.ProbeRun) string {
					if r.GetStartTime() == nil {
						return "-"
					}
					return age(c.now().Sub(r.GetStartTime().AsTime()))
				}},
				{name: "TOOK", value: func(r *offloadv1.ProbeRun) string {
					if r.GetEndTime() == nil {
						return "-"
					}
					return age(r.GetEndTime().AsTime().Sub(r.GetStartTime().AsTime()))
				}},
				{name: "BASELINE", value: func(r *offloadv1.ProbeRun) string { return cmp.Or(r.GetBaseline(), "-") }},
				{name: "PATHS", value: func(r *offloadv1.ProbeRun) string { return fmt.Sprint(len(r.GetPaths())) }},
				{name: "SESSIONS", value: func(r *offloadv1.ProbeRun) string { return fmt.Sprint(r.GetSessions()) }},
				{name: "LOADS", value: func(r *offloadv1.ProbeRun) string { return cmp.Or(strings.Join(r.GetLoads(), ", "), "-") }},
				{name: "KERNEL", wide: true, value: func(r *offloadv1.ProbeRun) string { return cmp.Or(r.GetKernel(), "-") }},
				{name: "PROGRAM", wide: true, value: func(r *offloadv1.ProbeRun) string { return cmp.Or(r.GetProgram(), "-") }},
			})
			return p.within(cmd, shortly, func(d daemon) error {
				r, err := d.probe.ListRuns(d.ctx, &offloadv1.ListRunsRequest{})
				if err != nil {
					return client.Error(err)
				}
				return printed(l, r.GetRuns())
			})
		},
	}
}

// load returns a run: from a file, if there is one of that name or it looks like one, else from those that are kept.
func (p *prober) load(cmd *cobra.Command, name string) ([]byte, error) {
	if strings.ContainsAny(name, "/.") {
		return readRun(name)
	}
	if _, err := os.Stat(name); err == nil {
		return readRun(name)
	}
	var text []byte
	err := p.within(cmd, shortly, func(d daemon) error {
		stream, err := d.probe.GetRun(d.ctx, &offloadv1.GetRunRequest{Id: name})
		if err != nil {
			return client.Error(err)
		}
		return received(stream.Recv, func(m *offloadv1.GetRunResponse) error { return appendBounded(&text, m.GetRun()) })
	})
	return text, err
}

func readRun(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, notFound{err}
	}
	return text, err
}

func (p *prober) reportCommand() *cobra.Command {
	var o outputs
	cmd := &cobra.Command{
		Use:   "report [ID|FILE...]",
		Short: "show runs again, by default the latest",
		Long:  "Show runs again: one that is kept, or a file that probe run -o json has written. Several are for studies of more than one run.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{""}
			}
			var texts [][]byte
			for _, name := range args {
				text, err := p.load(cmd, name)
				if err != nil {
					return err
				}
				texts = append(texts, text)
			}
			return p.show(texts, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func (p *prober) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "show how much more, or less, paths take than in an earlier run",
		Long: `Compare two runs, kept or in files: of each path what it takes more than the baseline. Both must have measured the same.

Exit code 0: no path takes more than before; 1: one does; 5: it is not known, for some are undecided or without a verdict.`,
		Args: usage(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var runs [2]*result.Run
			for i, name := range args {
				text, err := p.load(cmd, name)
				if err != nil {
					return err
				}
				if runs[i], err = report.Read(text); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			d, err := report.Compare(runs[0], runs[1])
			if err != nil {
				return err
			}
			fmt.Fprint(p.c.stdout, d.Text(p.c.width))
			switch d.Status() {
			case report.Same:
				return nil
			case report.Slower:
				return errNegative
			default:
				return errUnknown
			}
		},
	}
}

func (p *prober) cleanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "remove what a probe has left that was killed",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.within(cmd, shortly, func(d daemon) error {
				r, err := d.probe.Clean(d.ctx, &offloadv1.CleanRequest{})
				switch {
				case err != nil:
					return client.Error(err)
				case p.c.structured():
					return p.c.print("CleanResponse", r)
				case len(r.GetRemoved()) == 0:
					fmt.Fprintln(p.c.stderr, "nothing was left")
				}
				for _, what := range r.GetRemoved() {
					fmt.Fprintf(p.c.stdout, "removed %s\n", what)
				}
				return nil
			})
		},
	}
}
