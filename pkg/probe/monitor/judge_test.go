package monitor

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A way is lost when two looks in a row find less than two have found, and found again likewise; a look that sees few packets says nothing.
func TestPath(t *testing.T) {
	hw, sw, ovs, few := Way{Packets: 100, Hardware: 99, Software: 1}, Way{Packets: 100, Software: 95}, Way{Packets: 100, Hardware: 5, Software: 5}, Way{Packets: 9}
	for name, tt := range map[string]struct {
		looks []Way
		level Level
		lost  bool
	}{
		"nothing is known":            {nil, Unknown, false},
		"one look":                    {[]Way{hw}, Unknown, false},
		"hardware":                    {[]Way{hw, hw}, Hardware, false},
		"never offloaded":             {[]Way{ovs, ovs, ovs}, ByOVS, false},
		"a moment":                    {[]Way{hw, hw, ovs, hw, ovs, hw}, Hardware, false},
		"lost":                        {[]Way{hw, hw, ovs, ovs}, ByOVS, true},
		"lost to software":            {[]Way{hw, hw, sw, sw}, Filters, true},
		"lost filters":                {[]Way{sw, sw, ovs, ovs}, ByOVS, true},
		"lost and found":              {[]Way{hw, hw, ovs, ovs, hw, hw}, Hardware, false},
		"better":                      {[]Way{ovs, ovs, sw, sw, hw, hw}, Hardware, false},
		"few packets are no evidence": {[]Way{hw, hw, few, few, few}, Hardware, false},
	} {
		var p path
		for _, w := range tt.looks {
			p.look(w, time.Time{})
		}
		if p.level != tt.level || (p.lost() != "") != tt.lost {
			t.Errorf("%s: %q, lost %q", name, p.level, p.lost())
		}
	}
	if f, h := (Way{Packets: 10, Hardware: 9, Software: 5}).Offloaded(); f != 1 || h != 0.9 {
		t.Errorf("more than all: %v %v", f, h)
	}
}

// Of what is not offloaded as far as it could be it is said what the connection tracker knows of why.
func TestWhy(t *testing.T) {
	none, begun, assured := Tracked{}, Tracked{}.With(true, true, true).With(false, false, false), Tracked{}.With(true, true, true).With(true, false, false)
	table, nic := Tracked{}.With(true, true, true).With(true, true, false), Tracked{}.With(true, true, true).With(true, true, true)
	if (nic != Tracked{2, 2, 2, 2}) || (table != Tracked{2, 2, 2, 1}) || (begun != Tracked{2, 1, 1, 1}) {
		t.Fatalf("%+v %+v %+v", nic, table, begun)
	}
	for _, tt := range []struct {
		level   Level
		nic     bool
		tracked Tracked
		says    string
	}{
		{Unknown, true, none, ""},
		{Hardware, true, none, ""},
		{Filters, false, begun, ""}, // there is no better
		{Filters, true, none, "explain PORT PACKET"},
		{Filters, true, begun, "not assured"},
		{Filters, true, assured, "in no flow table"},
		{Filters, true, table, "no NIC has taken it"},
		{Filters, true, nic, "explain PORT PACKET"},
		{ByOVS, true, none, "no such connection"},
		{ByOVS, false, none, "no such connection"},
		{ByOVS, false, begun, "not assured"},
		{ByOVS, false, assured, "in no flow table"},
		{ByOVS, false, table, "explain PORT PACKET"},
		{ByOVS, true, table, "no NIC has taken it"},
	} {
		got := Way{NIC: tt.nic, Tracked: tt.tracked}.why(tt.level)
		if !strings.Contains(got, tt.says) || (got == "") != (tt.says == "") {
			t.Errorf("%q, NIC %v, %+v: %q, want %q", tt.level, tt.nic, tt.tracked, got, tt.says)
		}
	}
}

// draw makes round trips with a long tail, as they have one.
func draw(r *rand.Rand, n int, scale float64) []sample {
	all := make([]sample, n)
	for i := range all {
		all[i].took = time.Duration(scale * 30_000 * math.Exp(r.NormFloat64()*0.5))
	}
	return all
}

// In three million round trips of what does not change there is no alarm; what becomes three times as slow is found within 2,000 round trips or so, and found well again.
func TestSpeed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var s speed
	for range 3_000_000 / window {
		if s.add(draw(r, window, 1), 2); s.is != "" {
			t.Fatalf("a false alarm: %s", s.is)
		}
	}
	found := 0
	for found = 0; s.is == "" && found < 10*window; found += 100 {
		s.add(draw(r, 100, 3), 2)
	}
	if found > 3*window {
		t.Errorf("found after %d round trips", found)
	}
	if s.add(draw(r, 2*window, 3), 2); s.is == "" {
		t.Error("what is slow becomes usual")
	}
	if s.add(draw(r, 2*window, 1), 2); s.is != "" {
		t.Errorf("not well again: %s", s.is)
	}
	// Loss of more than one in a hundred is slower than anything.
	lossy := draw(r, 2*window, 1)
	for i := range lossy {
		if i%50 == 0 {
			lossy[i].took = Lost
		}
	}
	if s.add(lossy, 2); !strings.Contains(s.is, "lost") {
		t.Errorf("of loss it says %q", s.is)
	}
	// Without a ratio there is no alarm.
	var never speed
	never.add(draw(r, 20*window, 1), 0)
	if never.add(draw(r, 5*window, 100), 0); never.is != "" {
		t.Error(never.is)
	}
}

// A native histogram's quantiles are those of the samples, within 1 %.
func TestHistogram(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var h Histogram
	var all []float64
	sum := 0.0
	for _, s := range draw(r, 50_000, 1) {
		h.Add(int64(s.took))
		all = append(all, s.took.Seconds())
		sum += s.took.Seconds()
	}
	slices.Sort(all)
	if h.Count != 50_000 || math.Abs(h.Sum-sum) > 1e-9*sum {
		t.Errorf("count %d, sum %v, want %v", h.Count, h.Sum, sum)
	}
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		rank := int64(math.Ceil(q * 50_000))
		want, got := all[rank-1], 0.0
		for _, i := range slices.Sorted(maps.Keys(h.Buckets)) {
			if rank -= h.Buckets[i]; rank <= 0 {
				got = math.Exp2((float64(i) - 0.5) / (1 << Schema)) // the middle of the bucket
				break
			}
		}
		if math.Abs(got/want-1) > 0.01 {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
	for i, bound := range Classic {
		n, _ := slices.BinarySearchFunc(all, bound, func(a, b float64) int {
			if a <= b {
				return -1
			}
			return 1
		})
		if h.Classic[i] != uint64(n) {
			t.Errorf("up to %v: %d, want %d", bound, h.Classic[i], n)
		}
	}
	// What is no time at all makes no buckets without end.
	for range 100 {
		h.Add(r.Int64N(100))
		h.Add(math.MaxInt64 - r.Int64N(1e9))
	}
	if keys := slices.Sorted(maps.Keys(h.Buckets)); keys[0] < -3000 || keys[len(keys)-1] > 800 {
		t.Errorf("buckets from %d to %d", keys[0], keys[len(keys)-1])
	}
}

// Percentiles are those of the last time, with what was lost behind all others, and only as far as there is enough.
func TestSeries(t *testing.T) {
	at := time.Unix(1000, 0)
	var s series
	report := func(took []int64, lost uint64) {
		s.add(pinger.PairReport{Counts: pinger.Counts{Sent: uint64(len(took)) + lost, Answered: uint64(len(took)), Lost: lost}, Took: took}, at)
	}
	var took []int64
	for i := range int64(980) {
		took = append(took, 1000*(i+1))
	}
	report(took[:9], 0)
	if l := latency(s.samples); l.Count != 9 || l.P50 != 0 || l.Max != 9*time.Microsecond {
		t.Errorf("of nine: %+v", l)
	}
	report(took[9:], 20)
	want := Latency{Count: 1000, Lost: 20, P50: 500 * time.Microsecond, P90: 900 * time.Microsecond, P99: Lost, Max: 980 * time.Microsecond}
	if l := latency(s.samples); l != want {
		t.Errorf("%+v, want %+v", l, want)
	}
	at = at.Add(Recent + time.Second)
	report(took[:1], 0)
	if l := latency(s.samples); l.Count != 1 || s.counts.Sent != 1001 || s.counts.Lost != 20 || s.all.Count != 981 {
		t.Errorf("later: %+v %+v %d", l, s.counts, s.all.Count)
	}
	for range 10 {
		report(took, 0)
	}
	if len(s.samples) != maxRecent {
		t.Errorf("%d samples are remembered", len(s.samples))
	}
}

func TestVerdict(t *testing.T) {
	lost := path{best: Hardware, level: ByOVS}
	for name, tt := range map[string]struct {
		silent uint64
		path   path
		slow   string
		failed string
		want   reason.Reason
	}{
		"well":                {2, path{}, "", "", ""},
		"silent":              {3, lost, "slow", "", reason.ProbeNoAnswer},
		"refused":             {3, lost, "slow", "network is unreachable", reason.KernelRefused},
		"lost":                {0, lost, "slow", "", reason.ProbeOffloadLost},
		"slow":                {0, path{}, "slow", "", reason.ProbeSlower},
		"a level that is new": {0, path{best: Filters, level: Hardware}, "", "", ""},
	} {
		if got, message := verdict(&series{silent: tt.silent}, &tt.path, &speed{is: tt.slow}, tt.failed); got != tt.want || (message != "") != (got != "") {
			t.Errorf("%s: %s %q", name, got, message)
		}
	}
}
