// Flowdiff compares the flows of two bridges after giving canonical names to everything an agent is free to choose.
//
// Usage:
//
//	flowdiff [flags] A B
//	flowdiff [flags] -save FILE A
//
// A and B are OVS databases, such as unix:/run/openvswitch/db.sock, whose bridge is read live, or files that
// -save wrote. To see that offloadd installs what ovn-controller does on the same chassis:
//
//	flowdiff -save before.json unix:/run/openvswitch/db.sock     # while ovn-controller runs
//	ovn-appctl exit --restart                                    # then start offloadd, wait for nb_cfg
//	flowdiff -sb unix:/run/ovn/ovnsb_db.sock before.json unix:/run/openvswitch/db.sock
//
// Lines with - are only in A, with + only in B; -sb adds the logical flow behind each. A is the reference: flows
// that B lacks because their actions are out of scope for offloadd are counted apart when -sb is given.
// The exit code is 0 when the bridges are the same, 1 when they differ and 2 when that could not be found out.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/integration/parity"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	same, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "flowdiff:", err)
		os.Exit(2)
	case !same:
		os.Exit(1)
	}
}

// run does what the arguments ask and says whether the bridges are the same.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (bool, error) {
	flags := flag.NewFlagSet("flowdiff", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: flowdiff [flags] A B\n       flowdiff [flags] -save FILE A")
		flags.PrintDefaults()
	}
	bridge := flags.String("bridge", "br-int", "name of the bridge")
	sb := flags.String("sb", "", "Southbound database to explain flows by, such as unix:/run/ovn/ovnsb_db.sock")
	save := flags.String("save", "", "write the bridge to this file instead of comparing")
	print := flags.Bool("print", false, "print the normalised flows of A instead of comparing")
	ignoreCookies := flags.Bool("ignore-cookies", false, "do not compare cookies: the bridges belong to different Southbound databases")
	strict := flags.Bool("strict", false, "let flows count that are out of scope for offloadd, or deliberately different")
	var tables []int
	flags.Func("table", "compare only this table; may be repeated", func(s string) error {
		n, err := strconv.Atoi(s)
		tables = append(tables, n)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	want := 2
	if *save != "" || *print {
		want = 1
	}
	if flags.NArg() != want {
		flags.Usage()
		return false, fmt.Errorf("%d bridges given, want %d", flags.NArg(), want)
	}

	var bridges []parity.Bridge
	for _, arg := range flags.Args() {
		dump, err := read(ctx, arg, *bridge)
		if err != nil {
			return false, err
		}
		if *save != "" {
			return true, write(*save, dump)
		}
		b, err := parity.Normalise(dump, *ignoreCookies)
		if err != nil {
			return false, fmt.Errorf("%s: %w", arg, err)
		}
		bridges = append(bridges, b)
	}
	if *print {
		_, err := io.WriteString(stdout, bridges[0].String())
		return true, err
	}

	opts := parity.Options{A: flags.Arg(0), B: flags.Arg(1), Tables: tables}
	if *sb != "" {
		var err error
		if opts.Lflows, err = parity.ReadLflows(ctx, *sb); err != nil {
			return false, err
		}
		if !*strict {
			opts.OutOfScope, opts.Deviations = parity.OutOfScope(), parity.Deviations()
		}
	}
	report := parity.Compare(bridges[0], bridges[1], opts)
	return report.Same(), report.Format(stdout)
}

// read takes a bridge from a database or from a file.
func read(ctx context.Context, arg, bridge string) (parity.Dump, error) {
	for _, scheme := range []string{"unix:", "tcp:", "ssl:"} {
		if strings.HasPrefix(arg, scheme) {
			return parity.Source{Database: arg, Bridge: bridge}.Dump(ctx)
		}
	}
	text, err := os.ReadFile(arg)
	if err != nil {
		return parity.Dump{}, err
	}
	var d parity.Dump
	if err := json.Unmarshal(text, &d); err != nil {
		return parity.Dump{}, fmt.Errorf("%s: %w", arg, err)
	}
	return d, nil
}

func write(path string, d parity.Dump) error {
	text, err := json.MarshalIndent(d, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
