package monitor

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/pinger"
)

// A Config is what is measured all the time. The same may be given to all nodes: each does its part of it.
type Config struct {
	Pairs []Pair `json:"pairs,omitempty"`
	// Interval, Burst, Size, Timeout and Port are those of pinger.Plan. The two ends of a pair have to agree on Size and Port.
	Interval Duration `json:"interval,omitempty"`
	Burst    int      `json:"burst,omitempty"`
	Size     int      `json:"size,omitempty"`
	Timeout  Duration `json:"timeout,omitempty"`
	Port     uint16   `json:"port,omitempty"`
	// Look is how often the way of packets is looked at.
	Look Duration `json:"look,omitempty"`
	// Slower is how many times its former p99 a pair may have before that is a regression. 0: any.
	Slower float64 `json:"slower,omitempty"`
}

// A Pair is two logical ports, by their names.
type Pair struct {
	From string `json:"from"` // asks
	To   string `json:"to"`   // answers
}

// A Duration is one that is written like 1s or 500ms.
type Duration time.Duration

// UnmarshalText takes what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	p, err := time.ParseDuration(string(text))
	*d = Duration(p)
	return err
}

// MarshalText returns what UnmarshalText takes.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// minLook and maxLook bound Config.Look. Drivers read counters once a second, or less often.
const (
	minLook = 5 * time.Second
	maxLook = time.Hour
)

// maxName bounds the name of a logical port in octets.
const maxName = 255

// DefaultConfig measures nothing, and has what is most useful where it is not said.
func DefaultConfig() Config {
	return Config{Interval: Duration(time.Second), Burst: 1, Size: 64, Timeout: Duration(time.Second), Port: 8629, Look: Duration(time.Minute)}
}

// Check refuses what cannot be measured.
func (c Config) Check() error {
	p := c.plan()
	p.Pairs = make([]pinger.Pair, len(c.Pairs)) // there may be no more of them
	errs := []error{p.CheckTerms()}
	if d := time.Duration(c.Look); d < minLook || d > maxLook {
		errs = append(errs, fmt.Errorf("look %v: not from %v to %v", d, minLook, maxLook))
	}
	if math.IsNaN(c.Slower) || c.Slower != 0 && (c.Slower < 1.1 || c.Slower > 1000) {
		errs = append(errs, fmt.Errorf("slower %v: neither 0 nor from 1.1 to 1000", c.Slower))
	}
	seen := map[Pair]bool{}
	for i, w := range c.Pairs {
		switch {
		case w.From == "" || w.To == "":
			errs = append(errs, fmt.Errorf("pairs[%d]: from or to is missing", i))
		case len(w.From) > maxName || len(w.To) > maxName:
			errs = append(errs, fmt.Errorf("pairs[%d]: a name is longer than %d bytes", i, maxName))
		case w.From == w.To:
			errs = append(errs, fmt.Errorf("pairs[%d]: %s with itself", i, w.From))
		case seen[w]:
			errs = append(errs, fmt.Errorf("pairs[%d]: from %s to %s is there twice", i, w.From, w.To))
		}
		seen[w] = true
	}
	return errors.Join(errs...)
}

// plan is a plan of these terms, for nobody.
func (c Config) plan() pinger.Plan {
	return pinger.Plan{Interval: time.Duration(c.Interval), Burst: c.Burst, Size: c.Size, Timeout: time.Duration(c.Timeout), Port: c.Port}
}

// Ports are the names of all logical ports in question.
func (c Config) Ports() []string {
	seen := map[string]bool{}
	var names []string
	for _, w := range c.Pairs {
		for _, n := range []string{w.From, w.To} {
			if !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
	}
	return names
}
