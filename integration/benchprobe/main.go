// Benchprobe shows how far the probe's numbers can be trusted.
//
//	bin/benchprobe
//
// It has eight parts; arguments choose some of them:
//
//   - sockperf: the engine and sockperf measure the same two paths, loopback and a veth pair, polling, with the same priority on the same
//     CPUs, in turns;
//   - twins: identical paths are compared, in campaigns of sessions as a user's, and at most 5 % of the verdicts may be "different";
//   - delays: a server that waits 0.5 µs is found within a minute, one that waits 0.05 µs is not called different;
//   - hog: while all CPUs are used every other second, a difference stays what it was, or there is no verdict;
//   - segments: what is between devices by the kernel's timestamps is the same for twins;
//   - cost: the CPU time of a round trip is what a burner, which takes what nobody else wants, does not get;
//   - isolation: garbage that the daemon collects does not move the tail, and no collection waits for the probe;
//   - continuous: what it takes to measure a hundred peers all the time.
//
// It needs root, sockperf, and two CPUs that have nothing else to do. It fails if a claim does not hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/pinger"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == engine.Verb {
		os.Exit(engine.Main(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 2 && os.Args[1] == pinger.Verb {
		os.Exit(pinger.Main(os.Stdin, os.Stdout))
	}
	if len(os.Args) == 2 && (os.Args[1] == bareVerb || os.Args[1] == bareAnswerVerb) {
		fmt.Fprintln(os.Stderr, "benchprobe:", bareMain(os.Args[1]))
		os.Exit(1)
	}
	if len(os.Args) == 2 && os.Args[1] == burnVerb {
		if err := burn(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "benchprobe:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 5 && os.Args[1] == turnsVerb {
		if err := giveTurns(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "benchprobe: turns:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == hogVerb {
		n, _ := strconv.Atoi(os.Args[2]) // it comes from hogged
		hog(n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchprobe:", err)
		stop()
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	rounds    int
	duration  time.Duration
	campaigns int
	tries     int
	priority  int
	cpus      [2]int
	seed      uint64
}

// A part is one of the claims.
type part struct {
	name string
	run  func(ctx context.Context, o options, out io.Writer) error
}

var parts = []part{
	{"sockperf", besideSockperf},
	{"twins", onTwins},
	{"delays", onDelays},
	{"hog", besideHog},
	{"segments", onSegments},
	{"cost", onCost},
	{"isolation", onIsolation},
	{"continuous", continuously},
}

func run(ctx context.Context, args []string, out, stderr io.Writer) error {
	o := options{cpus: [2]int{0, 1}}
	flags := flag.NewFlagSet("benchprobe", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 12, "how often both tools measure each path")
	flags.DurationVar(&o.duration, "duration", 2*time.Second, "how long a session measures")
	flags.IntVar(&o.campaigns, "campaigns", 10, "of ten sessions on identical paths")
	flags.IntVar(&o.tries, "tries", 20, "campaigns of ten sessions beside a hog")
	flags.IntVar(&o.priority, "priority", 10, "of SCHED_FIFO; 0: ordinary threads")
	flags.IntVar(&o.cpus[0], "client", 0, "the client's `CPU`")
	flags.IntVar(&o.cpus[1], "server", 1, "the server's `CPU`")
	flags.Uint64Var(&o.seed, "seed", rand.Uint64(), "of what is random")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.duration < time.Second {
		return fmt.Errorf("-duration %v: less than a second", o.duration)
	}
	if o.rounds < 6 {
		return fmt.Errorf("-rounds %d: an interval takes six", o.rounds)
	}
	for _, name := range flags.Args() {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	fmt.Fprintf(out, "seed %d\n", o.seed)
	var failed []error
	for _, p := range parts {
		if flags.NArg() > 0 && !slices.Contains(flags.Args(), p.name) {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", p.name)
		if err := p.run(ctx, o, out); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}
