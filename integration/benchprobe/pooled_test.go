package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// Of a log only what is between the first pause and the last counts, without what was under way in a pause.
func TestLog(t *testing.T) {
	var log strings.Builder
	log.WriteString("------\npacket, txTime(sec), rxTime(sec), rtt(usec)\n")
	now, n := 1.0, 0
	trip := func(us float64) {
		fmt.Fprintf(&log, "%d, %.9f, %.9f, %.3f\n", n, now, now+us/1e6, us)
		now += us / 1e6
		n++
	}
	for range 500 {
		trip(77)
	}
	trip(150_000) // stopped while it was under way
	for i := range 30_000 {
		trip(10 + float64(i%1000)/100) // 10 to 20
	}
	now += 0.15 // stopped between two
	for range 100 {
		trip(15)
	}
	trip(150_000)
	for range 500 {
		trip(88)
	}
	var c counted
	if err := c.addLog(log.String()); err != nil {
		t.Fatal(err)
	}
	if got := c.count(); got != 30_100 {
		t.Errorf("%d round trips count, want 30100", got)
	}
	for p, want := range map[float64]float64{50: 15, 99: 19.9, 99.9: 19.98} {
		if got := c.at(p); math.Abs(got/want-1) > 0.002 {
			t.Errorf("p%v is %v, want %v", p, got, want)
		}
	}
	for bad, why := range map[string]string{
		"1, 2.0, 3.0, x\n": `a line of the log: "1, 2.0, 3.0, x\n"`,
		"":                 "0 round trips",
	} {
		if err := new(counted).addLog(bad); err == nil || !strings.HasPrefix(err.Error(), why) {
			t.Errorf("addLog(%q): %v, want %s", bad, err, why)
		}
	}
}

// A ratio is found though rounds differ by twice, if both tools have the same in a round.
func TestPooled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	rounds := make([][2]counted, 12)
	for i := range rounds {
		slow := 1 + rnd.Float64()
		for range 20_000 {
			took := 10_000 * slow * (1 + rnd.Float64())
			rounds[i][0].add(took, 1)
			rounds[i][1].add(took*1.2, 1)
		}
	}
	for _, c := range pooled(rounds, rnd) {
		if math.Abs(c.ratio-1.2) > 0.01 || c.low < 1.18 || c.high > 1.22 {
			t.Errorf("p%v: the ratio is %.3f [%.3f, %.3f], want 1.2", c.p, c.ratio, c.low, c.high)
		}
	}
}
