package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/train"
	"github.com/offloadd/offloadd/pkg/reason"
)

// victim, if it is in the environment, has the test program make a run that is to be killed.
const victim = "OFFLOADD_TEST_PROBE"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == engine.Verb {
		os.Exit(engine.Main(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 2 && os.Args[1] == train.Verb {
		os.Exit(train.Main(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 2 && os.Args[1] == path.ForwardVerb {
		fmt.Fprintln(os.Stderr, path.Forward())
		os.Exit(1)
	}
	if os.Getenv(victim) != "" {
		said := false
		_, err := New(Options{Wait: true}).Run(context.Background(), long(), func(p Progress) {
			if p.Session > 0 && !said {
				fmt.Println("measuring")
				said = true
			}
		})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// long takes longer than any test waits for it.
func long() Spec {
	return Spec{Paths: []string{"metal", "veth"}, Loads: []result.Load{{Mode: result.RR, Transport: "udp", Size: 64, Duration: time.Minute}}, Sessions: 6}
}

// A birth tells a namespace from later ones of the same name: numbers are used again.
type birth struct {
	inode uint64
	at    syscall.Timespec
}

// ours are the namespaces of paths, by name.
func ours(t *testing.T) map[string]birth {
	t.Helper()
	files, err := filepath.Glob("/run/netns/opr*")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]birth{}
	for _, f := range files {
		var st syscall.Stat_t
		if syscall.Stat(f, &st) == nil {
			found[f] = birth{st.Ino, st.Ctim}
		}
	}
	return found
}

// gone checks that none of what was there is there still. Other packages' tests have paths, too.
func gone(t *testing.T, before map[string]birth) {
	t.Helper()
	for f, b := range ours(t) {
		if before[f] == b {
			t.Errorf("%s is left", f)
		}
	}
}

// Two kinds, two loads, two sessions and those with timestamps: everything is in the run, and the run is kept.
func TestRun(t *testing.T) {
	p := New(Options{Dir: t.TempDir(), Program: "test 1", Wait: true, Facts: func(context.Context) map[string]string { return map[string]string{"ovs": "3.1"} }})
	spec := Spec{
		Paths:    []string{"metal", "veth", "vf"},
		Loads:    []result.Load{{Mode: result.RR, Transport: "udp", Size: 64}, {Mode: result.CRR, Transport: "tcp", Size: 64}},
		Sessions: 2, Count: 400, Warmup: 10 * time.Millisecond, Segments: true, Fresh: true, Seed: 7,
	}
	var told []Progress
	during := map[string]birth{}
	text, err := p.Run(t.Context(), spec, func(pr Progress) {
		if told = append(told, pr); len(during) == 0 && pr.Session > 0 {
			during = ours(t)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	run, err := report.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range run.Paths {
		names = append(names, path.Name+" "+path.Twin)
	}
	if want := []string{"metal ", "metal-twin metal", "veth "}; !slices.Equal(names, want) {
		t.Errorf("paths %q, want %q", names, want)
	}
	if len(run.Missing) != 1 || run.Missing[0].Kind != "vf" || run.Missing[0].Why == "" {
		t.Errorf("missing %+v", run.Missing)
	}
	if run.Baseline != "metal" || run.Program != "test 1" || run.Parameters.Seed != 7 || run.Machine.Facts["ovs"] != "3.1" ||
		run.Machine.Facts["clock source"] == "" || run.Machine.Kernel == "" || run.Machine.CPUs == 0 {
		t.Errorf("run %+v", run)
	}
	if len(run.Cases) != 6 {
		t.Fatalf("%d cases, want 6", len(run.Cases))
	}
	for i, c := range run.Cases {
		if c.Path != run.Paths[i%3].Name || c.Load != spec.Loads[i/3] {
			t.Errorf("case %d is of %s, %v", i, c.Path, c.Load)
		}
		sessions, timestamps := 0, 0
		for _, s := range c.Sessions {
			if s.Segments != nil {
				timestamps++
			} else if s.Histogram != "" {
				sessions++
			}
		}
		if wanted := (1 - i/3) * 2; sessions != 2 || timestamps != wanted {
			t.Errorf("%s, %v: %d sessions and %d with timestamps, want 2 and %d", c.Path, c.Load, sessions, timestamps, wanted)
		}
		// A session has 400/2 requests in the histogram, in bursts of 20 of which one is not.
		if want := int64(2 * 11 * 19); c.Latency == nil || c.Latency.Count+c.Latency.Lost < want {
			t.Errorf("%s, %v: %+v, want %d requests", c.Path, c.Load, c.Latency, want)
		}
		if i < 3 && c.Segments == nil {
			t.Errorf("%s, %v: no segments", c.Path, c.Load)
		}
		if (c.Against == nil) != (c.Path == "metal") {
			t.Errorf("%s, %v: against %+v", c.Path, c.Load, c.Against)
		}
	}
	last := 0.0
	for _, pr := range told {
		if pr.Fraction < last || pr.Fraction > 1 || pr.Doing == "" {
			t.Errorf("progress %+v after %v", pr, last)
		}
		last = pr.Fraction
	}
	if last != 1 || len(during) == 0 {
		t.Errorf("the last progress is %v; namespaces meanwhile: %v", last, during)
	}
	gone(t, during)

	kept, err := p.Runs()
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept: %+v, %v", kept, err)
	}
	if k := kept[0]; k.ID != run.ID || !k.Started.Equal(run.Started) || k.Sessions != 2 || len(k.Paths) != 3 || len(k.Loads) != 2 || k.Octets != int64(len(text)) {
		t.Errorf("kept %+v", k)
	}
	for _, id := range []string{run.ID, ""} {
		if again, err := p.Text(id); err != nil || string(again) != string(text) {
			t.Errorf("Text(%q) = %d octets, %v, want those of the run", id, len(again), err)
		}
	}
}

// Under a stream there are round trips of each path, what the stream was, and nothing that it would make wrong.
func TestUnder(t *testing.T) {
	loads := []result.Load{{Mode: result.RR, Transport: "udp", Size: 64, Under: 0.1}, {Mode: result.RR, Transport: "tcp", Size: 64, Under: 0.2}}
	text, err := New(Options{Wait: true}).Run(t.Context(), Spec{
		Paths: []string{"metal", "service"}, Loads: loads, Sessions: 2, Count: 400, Warmup: 10 * time.Millisecond, Timeout: 10 * time.Second, Segments: true,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	run, err := report.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(run.Cases) != 2*len(run.Paths) || run.Parameters.StreamCPUs == nil {
		t.Fatalf("%d cases of %d paths, streams on %v; missing %+v", len(run.Cases), len(run.Paths), run.Parameters.StreamCPUs, run.Missing)
	}
	for _, c := range run.Cases {
		if b := c.Background; b == nil || b.Maximum == 0 || b.Rate == 0 {
			t.Errorf("%s, %v: in the background %+v", c.Path, c.Load, b)
		} else {
			t.Logf("%s, %v: %.1f %% of %d octets a second; noise %+v", c.Path, c.Load, 100*b.Part(), b.Maximum, c.Sessions[0].Noise)
		}
		if want := int64(2 * 3 * 99); c.Latency == nil || c.Latency.Count+c.Latency.Lost != want {
			t.Errorf("%s, %v: %+v, want %d requests", c.Path, c.Load, c.Latency, want)
		}
		if len(c.Sessions) != 2 || c.Segments != nil || c.CPU != [2]result.CPU{} || (c.TCP != nil) != (c.Load.Transport == "tcp") {
			t.Errorf("%s, %v: %d sessions, segments %+v, CPU %+v, TCP %+v", c.Path, c.Load, len(c.Sessions), c.Segments, c.CPU, c.TCP)
		}
	}
}

// When the context ends the run ends, and nothing is left.
func TestCancel(t *testing.T) {
	p := New(Options{Dir: t.TempDir(), Wait: true})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var during map[string]birth
	var began time.Time
	_, err := p.Run(ctx, long(), func(pr Progress) {
		if pr.Session > 0 && during == nil {
			during, began = ours(t), time.Now()
			if _, err := p.Run(ctx, long(), nil); reason.Of(err) != reason.ProbeBusy {
				t.Errorf("a second run: %v", err)
			}
			if _, err := p.Clean(ctx); reason.Of(err) != reason.ProbeBusy {
				t.Errorf("cleaning meanwhile: %v", err)
			}
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v to end", took)
	}
	if len(during) == 0 {
		t.Error("there were no namespaces")
	}
	gone(t, during)
	if kept, err := p.Runs(); err != nil || len(kept) > 0 {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// Somebody else's paths are not touched.
func TestBusy(t *testing.T) {
	built, _, err := path.Build(t.Context(), path.Options{Kinds: []path.Want{{Kind: "metal"}}, Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	before := ours(t)
	p := New(Options{})
	if _, err := p.Run(t.Context(), long(), nil); reason.Of(err) != reason.ProbeBusy {
		t.Errorf("Run: %v", err)
	}
	if _, err := p.Clean(t.Context()); reason.Of(err) != reason.ProbeBusy {
		t.Errorf("Clean: %v", err)
	}
	for f, b := range before {
		if ours(t)[f] != b {
			t.Errorf("%s is gone", f)
		}
	}
	if err := built.Close(); err != nil {
		t.Error(err)
	}
}

// What a run leaves that is killed does no work any more, and is removed by Clean.
func TestKill(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victim+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it was, if all went well
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "measuring\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	left := ours(t)
	if len(left) == 0 {
		t.Fatal("it has no namespaces")
	}
	var children []string
	within(t, "it starts no engine", func() bool {
		children = childrenOf(t, cmd.Process.Pid)
		return len(children) > 0
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for _, pid := range children {
		within(t, fmt.Sprintf("process %s is left", pid), func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%s/ns/net", pid)) // a zombie has none
			return err != nil
		})
	}
	p := New(Options{})
	within(t, "the lock is held", func() bool {
		_, err := p.Clean(t.Context())
		if err != nil && reason.Of(err) != reason.ProbeBusy { // by tests of other packages
			t.Fatal(err)
		}
		return err == nil
	})
	gone(t, left)
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		b, _ := os.ReadFile(f) // the thread may have ended
		all = append(all, strings.Fields(string(b))...)
	}
	return all
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}
