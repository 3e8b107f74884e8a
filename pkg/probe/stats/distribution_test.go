package stats

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// random is a source whose seed is logged; a constant makes runs repeatable.
func random(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func distribution(t testing.TB, samples []int64, lost int64) *Distribution {
	t.Helper()
	h := NewHistogram()
	for _, s := range samples {
		if err := h.RecordValue(s); err != nil {
			t.Fatal(err)
		}
	}
	text, err := Encode(h)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Decode(text, lost)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tailed are round trips as a machine has them: most alike, some late, few very late.
func tailed(r *rand.Rand, n int) []int64 {
	samples := make([]int64, n)
	for i := range samples {
		samples[i] = int64(6000 * math.Exp(0.05*r.NormFloat64()))
		if r.IntN(200) == 0 {
			samples[i] += int64(math.Exp(9 + 2*r.Float64()*r.Float64()*3))
		}
	}
	return samples
}

// The oracle sorts the samples, with as many infinite ones behind them as were lost.
func TestPercentilesAreThoseOfSortedSamples(t *testing.T) {
	r := random(t, 1)
	for range 60 {
		n, lost := 1+r.IntN(30_000), r.IntN(200)*r.IntN(2)
		samples := tailed(r, n)
		d := distribution(t, samples, int64(lost))
		slices.Sort(samples)
		for range lost {
			samples = append(samples, math.MaxInt64)
		}
		for _, p := range append([]float64{0.1, 25, 75, 98}, percentiles...) {
			rank := int(math.Ceil(float64(len(samples))*p/100 - 1e-7))
			v, ok := d.At(p)
			if want := len(samples)-rank >= 10; ok != want {
				t.Fatalf("percentile %v of %d samples: ok = %t, want %t", p, len(samples), ok, want)
			}
			if !ok {
				continue
			}
			want := samples[rank-1]
			if want == math.MaxInt64 {
				if v != result.Lost {
					t.Errorf("percentile %v of %d and %d lost is %d, want lost", p, n, lost, v)
				}
				continue
			}
			if v < want || v-want > want/1024 {
				t.Errorf("percentile %v of %d and %d lost is %d, want %d to 1/1024 more", p, n, lost, v, want)
			}
		}
	}
}

func TestNeeded(t *testing.T) {
	for p, want := range map[float64]int64{50: 20, 90: 100, 99: 1000, 99.9: 10_000, 99.99: 100_000, 99.999: 1_000_000} {
		if got := Needed(p); got != want {
			t.Errorf("Needed(%v) = %d, want %d", p, got, want)
		}
		for _, n := range []int64{want - 1, want} {
			d := &Distribution{bins: []bin{{5, 5, n}}, count: n}
			if _, ok := d.At(p); ok != (n == want) {
				t.Errorf("percentile %v of %d samples: %t", p, n, ok)
			}
		}
	}
}

func TestLossIsInfinite(t *testing.T) {
	samples := make([]int64, 9800)
	for i := range samples {
		samples[i] = 7000
	}
	l := distribution(t, samples, 200).Latency(0)
	for _, test := range []struct {
		p    float64
		lost bool
	}{{50, false}, {95, false}, {99, true}, {99.9, true}} {
		got, ok := l.At(test.p)
		if !ok || got.Lost != test.lost || got.Lost != (got.Value == 0) {
			t.Errorf("percentile %v with 2 %% lost is %+v, %t, want lost: %t", test.p, got, ok, test.lost)
		}
	}
	if l.Count != 9800 || l.Lost != 200 || math.Abs(l.Mean-7000) > 7 || l.Max < 7000 || l.Max > 7007 {
		t.Errorf("%+v", l)
	}
	if all := (&Distribution{lost: 50}).Latency(0); all.Count != 0 || len(all.Percentiles) != 1 || !all.Percentiles[0].Lost {
		t.Errorf("if everything is lost: %+v", all)
	}
	if none := (&Distribution{}).Latency(0); none != nil {
		t.Errorf("of nothing: %+v", none)
	}
}

func TestMoments(t *testing.T) {
	r := random(t, 2)
	samples := tailed(r, 50_000)
	var mean, squares float64
	for _, s := range samples {
		mean += float64(s) / float64(len(samples))
	}
	for _, s := range samples {
		squares += (float64(s) - mean) * (float64(s) - mean)
	}
	stddev := math.Sqrt(squares / float64(len(samples)-1))
	l := distribution(t, samples, 0).Latency(3)
	if math.Abs(l.Mean/mean-1) > 1e-3 || math.Abs(l.Stddev/stddev-1) > 2e-3 || l.Jitter != 3 {
		t.Errorf("mean %v, stddev %v, jitter %v, want %v, %v, 3", l.Mean, l.Stddev, l.Jitter, mean, stddev)
	}
	least, most := slices.Min(samples), slices.Max(samples)
	if l.Min > least || least-l.Min > least/1024 || l.Max < most || l.Max-most > most/1024 {
		t.Errorf("from %d to %d, want %d to %d", l.Min, l.Max, least, most)
	}
}

// Merging is exact: however samples are spread over sessions, and in whatever order those are merged, the distribution is that of all
// samples in one histogram.
func TestMerge(t *testing.T) {
	r := random(t, 3)
	for range 30 {
		all := tailed(r, 1+r.IntN(5000))
		var (
			parts []*Distribution
			lost  int64
		)
		for rest := all; len(rest) > 0; {
			n, l := 1+r.IntN(len(rest)), int64(r.IntN(3))
			parts = append(parts, distribution(t, rest[:n], l))
			rest, lost = rest[n:], lost+l
		}
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		want := distribution(t, all, lost)
		if got := Merge(parts...); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d parts merge to another distribution than %d samples have", len(parts), len(all))
		}
		k := r.IntN(len(parts) + 1)
		if got := Merge(Merge(parts[k:]...), Merge(parts[:k]...)); !reflect.DeepEqual(got, want) {
			t.Fatal("merging in two steps differs")
		}
	}
}

func TestCurve(t *testing.T) {
	d := distribution(t, tailed(random(t, 4), 20_000), 20)
	curve := d.Curve()
	for i, p := range curve {
		if i > 0 && (p.Below <= curve[i-1].Below || p.Value <= curve[i-1].Value) {
			t.Fatalf("point %d: %+v does not ascend from %+v", i, p, curve[i-1])
		}
	}
	last := curve[len(curve)-1].Below
	if last > 1-10.0/20_020 || last < 0.99 {
		t.Errorf("the curve ends at %v", last)
	}
}

func TestDecodeRefuses(t *testing.T) {
	other := hdrhistogram.New(1, 1000, 2)
	_ = other.RecordValue(7)
	foreign, err := Encode(other)
	if err != nil {
		t.Fatal(err)
	}
	huge := NewHistogram()
	_ = huge.RecordValues(7, maxCount+1)
	many, err := Encode(huge)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text string
		lost int64
	}{
		"another range": {foreign, 0}, "too many samples": {many, 0}, "no base64": {"()", 0}, "short": {"AAAA", 0},
		"negative loss": {"", -1}, "too long": {string(make([]byte, maxEncoded+1)), 0},
	} {
		if d, err := Decode(test.text, test.lost); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	h := NewHistogram()
	_ = h.RecordValues(7000, 100)
	text, err := Encode(h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("")
	f.Fuzz(func(_ *testing.T, text string) {
		d, err := Decode(text, 1)
		if err != nil {
			return
		}
		d.Latency(0)
		d.Curve()
	})
}

// A value is called one of a retransmission timer if all samples are that it may be of: the oracle counts samples, with the bins of the histogram itself.
func TestTimeoutsAreAllOfTheirBin(t *testing.T) {
	r := random(t, 11)
	h := NewHistogram()
	same := func(a, b int64) bool { return h.ValuesAreEquivalent(a, b) }
	labels := map[bool]int{}
	for range 200 {
		var samples, waited []int64
		for range 1 + r.IntN(3000) {
			v := int64(6000 + r.IntN(2000))
			if r.IntN(40) == 0 {
				v = int64(204_000_000 + r.IntN(3)*400_000)
				if r.IntN(8) > 0 {
					waited = append(waited, v)
				}
			}
			samples = append(samples, v)
		}
		d := distribution(t, samples, 0)
		l := d.Latency(0)
		if waited == nil {
			d.label(l, &Distribution{})
		} else {
			d.label(l, distribution(t, waited, 0))
		}
		want := func(value int64) bool {
			of, have := 0, 0
			for _, v := range samples {
				if same(v, value) {
					of++
				}
			}
			for _, v := range waited {
				if same(v, value) {
					have++
				}
			}
			return have > 0 && have == of
		}
		for _, p := range l.Percentiles {
			if p.RTO != want(p.Value) {
				t.Errorf("p%v, %d: RTO is %v, want %v", p.P, p.Value, p.RTO, want(p.Value))
			}
			labels[p.RTO]++
		}
		if l.MaxRTO != want(l.Max) {
			t.Errorf("maximum %d: RTO is %v, want %v", l.Max, l.MaxRTO, want(l.Max))
		}
		labels[l.MaxRTO]++
	}
	if labels[true] < 50 || labels[false] < 50 {
		t.Errorf("the labels are too one-sided to tell anything: %v", labels)
	}
}
