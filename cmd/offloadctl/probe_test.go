package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func TestMain(m *testing.M) {
	if code, is := probeChild(os.Args); is {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// fakeRun is a run of two paths, and a twin, on which veth takes 5 us more, and slower more than that.
func fakeRun(id string, slower int64) []byte {
	load := result.Load{Mode: result.RR, Transport: "udp", Size: 64}
	run := &result.Run{
		Version: result.Version, ID: id, Started: now.Add(-time.Hour), Ended: now.Add(-time.Hour + 90*time.Second), Program: "offloadd v1", Baseline: "metal",
		Parameters: result.Parameters{
			Loads: []result.Load{load}, Sessions: 8, Rounds: 100, Burst: 20, CPUs: [2]int{2, 3}, Priority: 10, Seed: 1, Limits: stats.DefaultLimits(),
		},
		Machine: result.Machine{Hostname: "n1", Kernel: "6.1.0", CPU: "CPU", CPUs: 4},
		Paths:   []result.Path{{Name: "metal", Kind: "metal"}, {Name: "metal-twin", Kind: "metal", Twin: "metal"}, {Name: "veth", Kind: "veth"}},
		Missing: []result.Missing{{Kind: "vf", Why: "there is no NIC"}},
	}
	for i, p := range run.Paths {
		c := result.Case{Path: p.Name, Load: load}
		for session := range int64(8) {
			h := stats.NewHistogram()
			for k := range int64(1200) {
				v := 20_000 + 40*session + 5*k + int64(i%2)*(session%3-1)*20
				if p.Name == "veth" {
					v += 5_000 + slower
				}
				if err := h.RecordValue(v); err != nil {
					panic(err)
				}
			}
			text, err := stats.Encode(h)
			if err != nil {
				panic(err)
			}
			c.Sessions = append(c.Sessions, result.Session{
				Histogram: text, Elapsed: time.Second, Transactions: 1200, Loss: result.Loss{Sent: 1200}, Noise: result.Noise{Elapsed: time.Second},
				CPU: [2]result.CPU{{User: 2 * time.Millisecond, System: 10 * time.Millisecond}, {System: 12 * time.Millisecond}},
			})
		}
		run.Cases = append(run.Cases, c)
	}
	if err := stats.Judge(run); err != nil {
		panic(err)
	}
	text, err := report.JSON(run)
	if err != nil {
		panic(err)
	}
	return text
}

func (f *fake) ListPathKinds(context.Context, *offloadv1.ListPathKindsRequest) (*offloadv1.ListPathKindsResponse, error) {
	return &offloadv1.ListPathKindsResponse{Kinds: []*offloadv1.PathKind{
		{Name: "metal", Passes: "wire, which is a veth pair between two nodes", StandsFor: []string{"bare metal (000)", "physical (003)"}, Nodes: 2, Options: []string{"mtu", "delay"}},
		{Name: "vf", Passes: "a NIC's embedded switch", Needs: "a NIC with SR-IOV"},
	}}, nil
}

func (f *fake) Run(req *offloadv1.RunRequest, s offloadv1.ProbeService_RunServer) error {
	text, err := protojson.Marshal(req.GetSpec())
	if err != nil {
		return err
	}
	f.done = append(f.done, strings.ReplaceAll(string(text), " ", ""))
	if req.GetSpec().GetBaseline() == "sf" {
		return refusal(codes.FailedPrecondition, reason.ProbeImpossible, "probe baseline sf: it takes two subfunctions of a NIC", nil)
	}
	for i := range uint32(3) {
		p := &offloadv1.ProbeProgress{Fraction: float64(i) / 2, Doing: "udp rr 64 B", Session: i, Sessions: 2}
		if err := s.Send(&offloadv1.RunResponse{Event: &offloadv1.RunResponse_Progress{Progress: p}}); err != nil {
			return err
		}
	}
	run := fakeRun("20240506-060809-0001", 0)
	for _, part := range [][]byte{run[:100], run[100:]} {
		if err := s.Send(&offloadv1.RunResponse{Event: &offloadv1.RunResponse_Run{Run: part}}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) RunPorts(req *offloadv1.RunPortsRequest, s offloadv1.ProbeService_RunPortsServer) error {
	text, err := protojson.Marshal(req.GetSpec())
	if err != nil {
		return err
	}
	f.done = append(f.done, strings.ReplaceAll(string(text), " ", ""))
	if req.GetSpec().GetServer() == "lost" {
		return refusal(codes.FailedPrecondition, reason.ProbeRefused, "probe: counters do not say what is claimed: offload, udp 10.0.0.1:1 > 10.0.0.2:7531: of 10 packets 1 were counted by nothing", nil)
	}
	return s.Send(&offloadv1.RunPortsResponse{Event: &offloadv1.RunPortsResponse_Run{Run: fakeRun("20240506-060809-0001", 0)}})
}

// What the flags of probe port ask for is what the daemon is asked for.
func TestPortProbeSpec(t *testing.T) {
	f := newFake()
	s := shell{t: t, socket: f.serve(t)}
	for line, want := range map[string]string{
		"": `{"client":"web","server":"db","port":7531,"new":8,"cold":2,"spec":{"loads":[{"mode":"PROBE_MODE_RR","size":64}]}}`,
		"--port 53 --family 6 --new 0 --cold 0 --idle 3s --sessions 6 --busy --sizes 64,300 --priority 0": `{"client":"web","server":"db","port":53,"family":6,"new":0,"cold":0,` +
			`"idle":"3s","spec":{"loads":[{"mode":"PROBE_MODE_RR","size":64},{"mode":"PROBE_MODE_RR","size":300}],"sessions":6,"busy":true,"priority":0}}`,
		"--mode open --rate 500": `{"client":"web","server":"db","port":7531,"new":8,"cold":2,"spec":{"loads":[{"mode":"PROBE_MODE_OPEN","size":64,"rate":500}]}}`,
	} {
		f.done = nil
		_, stderr, code := s.run(append([]string{"probe", "port", "web", "db"}, strings.Fields(line)...)...)
		if code != 0 || len(f.done) != 1 || f.done[0] != want {
			t.Errorf("%s: exit %d\n%q, want\n%q\n%s", line, code, f.done, want, stderr)
		}
	}
}

func (f *fake) RunStarts(req *offloadv1.RunStartsRequest, s offloadv1.ProbeService_RunStartsServer) error {
	text, err := protojson.Marshal(req.GetSpec())
	if err != nil {
		return err
	}
	f.done = append(f.done, strings.ReplaceAll(string(text), " ", ""))
	if req.GetSpec().GetPorts()[0] == "web" {
		return refusal(codes.AlreadyExists, reason.LPortInUse, "probe port web: a port of this node is of it", nil)
	}
	run := &result.Run{
		Version: result.Version, ID: "20240506-060809-0001", Started: now.Add(-time.Hour), Ended: now, Program: "offloadd v1", Baseline: "veth",
		Parameters: result.Parameters{Seed: 1}, Machine: result.Machine{Hostname: "n1", Kernel: "6.1.0", CPU: "CPU", CPUs: 4},
		Paths: []result.Path{{Name: "veth", Kind: "veth"}},
		Starts: &result.Starts{
			Target: result.Port{Name: "db", Kind: "veth", Device: "off1", Address: "10.0.0.2"}, Ports: req.GetSpec().GetPorts(), Wait: 10 * time.Second, Interval: time.Millisecond,
			Cases: []result.StartCase{{Path: "veth", Kind: "veth", Parallel: 1, Batches: []result.Batch{{Starts: []result.Start{{
				Port: "probe-1", Configured: 2 * time.Millisecond, Installed: 20 * time.Millisecond, Created: 21 * time.Millisecond, Answered: 22 * time.Millisecond, Deleted: 9 * time.Millisecond,
				Requests: result.Forwarding{Filters: 24 * time.Millisecond, Packet: 3, Exact: true}, Answers: result.Forwarding{Filters: 25 * time.Millisecond},
			}}}}}},
		},
	}
	if err := stats.Judge(run); err != nil {
		return err
	}
	if text, err = report.JSON(run); err != nil {
		return err
	}
	return s.Send(&offloadv1.RunStartsResponse{Event: &offloadv1.RunStartsResponse_Run{Run: text}})
}

// What the flags of probe start ask for is what the daemon is asked for.
func TestStartProbeSpec(t *testing.T) {
	f := newFake()
	s := shell{t: t, socket: f.serve(t)}
	for line, want := range map[string]string{
		"": `{"target":"db","ports":["p1","p2"],"kinds":["PORT_KIND_VETH"],"port":7531,"count":40,"parallel":[1],"wait":"10s","interval":"0.001s"}`,
		"--kind veth,vf --pool fast --gateway 10.0.0.1 --port 53 --family 6 --count 7 --parallel 1,2 --wait 3s --interval 5ms --seed 8": `{"target":"db","ports":["p1","p2"],` +
			`"kinds":["PORT_KIND_VETH","PORT_KIND_VF"],"pool":"fast","gateway":"10.0.0.1","port":53,"family":6,"count":7,"parallel":[1,2],"wait":"3s","seed":"8","interval":"0.005s"}`,
	} {
		f.done = nil
		_, stderr, code := s.run(append([]string{"probe", "start", "db", "p1", "p2"}, strings.Fields(line)...)...)
		if code != 0 || len(f.done) != 1 || f.done[0] != want {
			t.Errorf("%s: exit %d\n%q, want\n%q\n%s", line, code, f.done, want, stderr)
		}
	}
}

// fakePairs are one that is well, one that has lost its offload, one that is not measured, and answers.
func fakePairs() []*offloadv1.ProbePair {
	percentile := func(percent float64, d time.Duration) *offloadv1.ProbePercentile {
		return &offloadv1.ProbePercentile{Percent: percent, Value: durationpb.New(d)}
	}
	return []*offloadv1.ProbePair{
		{
			From: "web-0", To: "db-0", Chassis: "n2", Measured: true, Since: since(time.Hour), Sent: 3600, Answered: 3599, Lost: 1, Recent: 1200, Max: durationpb.New(2 * time.Millisecond),
			Percentiles: []*offloadv1.ProbePercentile{percentile(50, 31*time.Microsecond), percentile(90, 40*time.Microsecond), percentile(99, 88500)},
			Level:       offloadv1.OffloadLevel_OFFLOAD_LEVEL_HARDWARE, Filters: 1, Hardware: 0.99,
			Connection: &offloadv1.ProbeConnection{Zones: 1, Assured: 1, Offload: 1, HwOffload: 1},
		},
		{
			From: "web-0", To: "db-1", Chassis: "n3", Measured: true, Since: since(5 * time.Minute), Sent: 1100, Answered: 1080, Lost: 20, Late: 3, Missed: 4, Held: 5, Recent: 1100, RecentLost: 20,
			Percentiles: []*offloadv1.ProbePercentile{percentile(50, time.Millisecond), percentile(90, 2*time.Millisecond), {Percent: 99}},
			Reason:      string(reason.ProbeOffloadLost), Message: "its packets were forwarded by hardware, and are by Open vSwitch now", Level: offloadv1.OffloadLevel_OFFLOAD_LEVEL_OVS, Filters: 0.02, Regressions: 1,
			Connection: &offloadv1.ProbeConnection{Zones: 2, Assured: 2, Offload: 1},
		},
		{From: "web-0", To: "db-2", Since: since(time.Minute), Reason: string(reason.LPortNotFound), Message: "the Southbound has no logical port db-2"},
		{
			From: "lb-0", To: "web-0", Chassis: "n1", Answers: true, Since: since(time.Hour), Level: offloadv1.OffloadLevel_OFFLOAD_LEVEL_OVS,
			Connection: &offloadv1.ProbeConnection{Zones: 1}, Why: "to the connection tracker it is not assured, which takes packets both ways for two seconds",
		},
	}
}

func (f *fake) WatchPairs(_ *offloadv1.WatchPairsRequest, s offloadv1.MonitorService_WatchPairsServer) error {
	for i := range 2 {
		if err := s.Send(&offloadv1.WatchPairsResponse{Pairs: fakePairs()[:4-3*i], Answered: uint64(i)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) ListRuns(context.Context, *offloadv1.ListRunsRequest) (*offloadv1.ListRunsResponse, error) {
	return &offloadv1.ListRunsResponse{Runs: []*offloadv1.ProbeRun{
		{
			Id: "20240506-060809-0001", StartTime: since(time.Hour), EndTime: since(time.Hour - 90*time.Second), Program: "offloadd v1", Kernel: "6.1.0", Baseline: "metal",
			Paths: []string{"metal", "metal-twin", "veth"}, Loads: []string{"udp rr 64 B"}, Sessions: 8, Size: 4711,
		},
		{Id: "20240505-060809-0002", Size: 3},
	}}, nil
}

func (f *fake) GetRun(req *offloadv1.GetRunRequest, s offloadv1.ProbeService_GetRunServer) error {
	runs := map[string]int64{"": 0, "20240506-060809-0001": 0, "20240507-060809-0003": 4_000, "20240508-060809-0004": -4_000}
	slower, ok := runs[req.GetId()]
	if !ok {
		return refusal(codes.NotFound, reason.ProbeRunNotFound, fmt.Sprintf("probe run %s: it is not kept, the last 20 are", req.GetId()), nil)
	}
	return s.Send(&offloadv1.GetRunResponse{Run: fakeRun(req.GetId(), slower)})
}

func (f *fake) Clean(context.Context, *offloadv1.CleanRequest) (*offloadv1.CleanResponse, error) {
	if f.tidy {
		return &offloadv1.CleanResponse{}, nil
	}
	return &offloadv1.CleanResponse{Removed: []string{"/run/netns/opr0-pod1", "process 4711"}}, nil
}

// What the flags ask for is what the daemon is asked for.
func TestProbeSpec(t *testing.T) {
	f := newFake()
	s := shell{t: t, socket: f.serve(t)}
	for line, want := range map[string]string{
		"":                             `{"loads":[SIZES],"segments":true}`,
		"--kinds all --segments=false": `{"loads":[SIZES]}`,
		"--kinds metal,routed,rules=200,twin,veth --sizes 64":                            `{"paths":["metal","routed,rules=200,twin","veth"],"loads":[{"mode":"PROBE_MODE_RR","size":64}],"segments":true}`,
		"--mode open --rate 500 --transport tcp --answer 350 --duration 2s --sessions 7": `{"loads":[{"mode":"PROBE_MODE_OPEN","transport":"PROBE_TRANSPORT_TCP","size":64,"answer":350,"rate":500,"duration":"2s"}],"sessions":7,"segments":true}`,
		"--mode stream --busy --fresh --priority 0 --client-cpu 3 --margin 1us --seed 5": `{"loads":[{"mode":"PROBE_MODE_STREAM","size":1400}],"busy":true,"priority":0,"clientCpu":3,"segments":true,"fresh":true,"margin":"0.000001s","seed":"5"}`,
		"--under 0,30%,0.5": `{"loads":[{"mode":"PROBE_MODE_RR","size":64},{"mode":"PROBE_MODE_RR","size":64,"under":0.3},{"mode":"PROBE_MODE_RR","size":64,"under":0.5}],"segments":true}`,
		"--as k8s-compare --transport tcp --sizes 64,350 --under 5e1%": `{"loads":[{"mode":"PROBE_MODE_RR","transport":"PROBE_TRANSPORT_TCP","size":64,"under":0.5},` +
			`{"mode":"PROBE_MODE_RR","transport":"PROBE_TRANSPORT_TCP","size":350,"under":0.5}],"study":"k8s-compare","segments":true}`,
		"--as deitcher":                   `{"study":"deitcher","segments":true}`,
		"--as macvlan-etun --duration 1s": `{"loads":[{"mode":"PROBE_MODE_STREAM","transport":"PROBE_TRANSPORT_TCP","size":1400,"duration":"1s"},{"mode":"PROBE_MODE_MAERTS","transport":"PROBE_TRANSPORT_TCP","size":1400,"duration":"1s"},{"mode":"PROBE_MODE_RR","transport":"PROBE_TRANSPORT_TCP","size":16,"duration":"1s"},{"mode":"PROBE_MODE_STREAM","transport":"PROBE_TRANSPORT_UDP","size":1400,"duration":"1s"},{"mode":"PROBE_MODE_RR","transport":"PROBE_TRANSPORT_UDP","size":16,"duration":"1s"}],"study":"macvlan-etun","segments":true}`,
		"--as k8s-compare --rate 3000":    `{"loads":[{"mode":"PROBE_MODE_OPEN","transport":"PROBE_TRANSPORT_TCP","size":64,"answer":350,"rate":3000},{"mode":"PROBE_MODE_OPEN","transport":"PROBE_TRANSPORT_TCP","size":64,"answer":4096,"rate":3000}],"study":"k8s-compare","segments":true}`,
		"--as deitcher --kinds all --sizes 64 --delay 5ms --loss 0.01 --lost-after 3s": `{"paths":[ALL],"wire":{"delay":"0.005s","loss":0.01},"loads":[{"mode":"PROBE_MODE_RR","size":64}],"study":"deitcher","timeout":"3s","segments":true}`,
	} {
		f.done = nil
		_, stderr, code := s.run(append([]string{"probe", "run"}, strings.Fields(line)...)...)
		if code != 0 || len(f.done) != 1 {
			t.Errorf("%s: exit %d, %d runs: %s", line, code, len(f.done), stderr)
			continue
		}
		var sizes []string
		for _, n := range []int{64, 300, 350, 500, 1024, 2048, 4096} {
			sizes = append(sizes, fmt.Sprintf(`{"mode":"PROBE_MODE_RR","size":%d}`, n))
		}
		want = strings.ReplaceAll(want, "SIZES", strings.Join(sizes, ","))
		want = strings.ReplaceAll(want, "ALL", `"`+strings.Join(kindNames(), `","`)+`"`)
		if f.done[0] != want {
			t.Errorf("%s: asks for\n%s, want\n%s", line, f.done[0], want)
		}
	}
	for _, part := range []string{"30", "-1%", "101%", "NaN", "%", "half"} {
		if _, stderr, code := s.run("probe", "run", "--under", part); code != exitUsage || !strings.Contains(stderr, "neither a percentage") {
			t.Errorf("--under %s: exit %d, %s", part, code, stderr)
		}
	}
	// A study of several circuits is a run for each.
	f.done = nil
	if _, stderr, code := s.run("probe", "run", "--as", "uva"); code != 0 || len(f.done) != 6 || !strings.Contains(f.done[0], `"wire":{"delay":"0.018`) {
		t.Errorf("uva: exit %d, %q: %s", code, f.done, stderr)
	}
}

// Reports are written where the user wants them.
func TestProbeFiles(t *testing.T) {
	s := shell{t: t, socket: newFake().serve(t)}
	dir := t.TempDir()
	page, picture, saved := filepath.Join(dir, "run.html"), filepath.Join(dir, "run.png"), filepath.Join(dir, "run.json")
	stdout, stderr, code := s.run("probe", "run", "--html", page, "--png", picture, "-o", "json")
	if code != 0 || stderr != "written: "+page+"\nwritten: "+picture+"\n" {
		t.Errorf("exit %d, %s", code, stderr)
	}
	for file, begin := range map[string]string{page: "<!doctype html>", picture: "\x89PNG"} {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(strings.ToLower(string(text[:min(len(text), 15)])), strings.ToLower(begin)) {
			t.Errorf("%s: %.20q, %v", file, text, err)
		}
	}
	// What -o json has printed can be read again, and compared.
	if err := os.WriteFile(saved, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	again, _, code := s.run("probe", "report", saved)
	if once, _, _ := s.run("probe", "run"); code != 0 || again != once {
		t.Errorf("exit %d: %s, want %s", code, again, once)
	}
	if out, stderr, code := s.run("probe", "diff", saved, "20240507-060809-0003"); code != 1 {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
	if _, stderr, code := s.run("probe", "report", filepath.Join(dir, "none.json")); code != 3 {
		t.Errorf("a file that is not there: exit %d, %s", code, stderr)
	}
}

// On a terminal there is a line of progress, which is gone at the end.
func TestProbeProgress(t *testing.T) {
	var b strings.Builder
	c := &cli{env: env{stderr: &b, live: true, now: func() time.Time { return now.Add(10 * time.Second) }}}
	l := progressLine{c: c, begun: now}
	l.show(&offloadv1.ProbeProgress{Doing: "building paths"})
	l.show(&offloadv1.ProbeProgress{Doing: "udp rr 64 B", Fraction: 0.25, Session: 2, Sessions: 4})
	l.end()
	want := "\r  0 %  building paths\x1b[K\r 25 %  session 2 of 4, udp rr 64 B, 30s left\x1b[K\r\x1b[K"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	c.live = false
	l = progressLine{c: c, begun: now}
	l.show(&offloadv1.ProbeProgress{Doing: "building paths"})
	l.end()
	if b.Len() > 0 {
		t.Errorf("not on a terminal: %q", b.String())
	}
}

// Without a daemon the same calls do the same: a run is made, kept, listed, and refused by the same reasons.
func TestProbeLocal(t *testing.T) {
	s := shell{t: t, socket: "/nonexistent"}
	local := []string{"probe", "--local", "--state-dir", t.TempDir()}
	do := func(args ...string) (string, string, int) {
		return s.run(slices.Concat(local, args)...)
	}
	args := strings.Fields("run --kinds metal,veth --sizes 64 --count 100 --sessions 1 --warmup 1ms --segments=false -o json")
	stdout, stderr, code := do(args...)
	for deadline := time.Now().Add(2 * time.Minute); code == exitPrecondition && strings.Contains(stderr, "PROBE_BUSY") && time.Now().Before(deadline); {
		<-time.After(100 * time.Millisecond) // tests of other packages have paths
		stdout, stderr, code = do(args...)
	}
	run, err := report.Read([]byte(stdout))
	if code != 0 || err != nil || len(run.Cases) != 3 || run.Cases[0].Latency == nil {
		t.Fatalf("exit %d, %v: %s", code, err, stderr)
	}
	if out, _, code := do("runs", "--no-headers"); code != 0 || !strings.HasPrefix(out, run.ID) {
		t.Errorf("runs: exit %d, %s", code, out)
	}
	if out, _, code := do("report", "-o", "json"); code != 0 || out != stdout {
		t.Errorf("report: exit %d, %d octets, want %d", code, len(out), len(stdout))
	}
	if _, stderr, code := do("run", "--kinds", "moon"); code != 2 || !strings.Contains(stderr, "spec.paths[0]") || !strings.Contains(stderr, "INVALID_FIELD") {
		t.Errorf("a wrong kind: exit %d, %s", code, stderr)
	}
}
