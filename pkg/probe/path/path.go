// Package path builds the paths that a probe measures, in network namespaces of its own, and removes them.
//
// In go kinds by name (Kinds lists them); out come paths, each with two ends where sockets may be opened, and for each
// kind that cannot be built here the reason, found by trying. All namespaces and all devices have names that begin with
// "opr", and devices are never in another namespace than these, so what a killed process has left is found by its name:
// there is no journal. One process at a time has paths (Lock).
package path

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/offloadd/offloadd/internal/netnsdir"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Root is where files of paths are, unless Options says otherwise, and the lock is always.
const Root = "/run/opr"

// Options are what to build.
type Options struct {
	// Kinds are built in this order. Nil: each of Kinds once.
	Kinds []Want

	// Dir is a directory for databases and sockets, which is made if need be. A socket's path has at most 107 octets, so it
	// is to be short. Empty: Root.
	Dir string

	// Wait says to wait, until the context ends, for another process that has paths, instead of refusing with ErrBusy.
	Wait bool

	// Functions gives paths functions of a NIC. Nil: there are none.
	Functions Functions
}

// An End is where one side of a load runs.
type End struct {
	Netns  string     `json:"netns"` // a file that setns(2) takes
	Addr   netip.Addr `json:"addr"`
	Device string     `json:"device"` // that has Addr, inside the namespace
}

// A Path is something to send packets through.
type Path struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Twin names the path that this one is identical with; empty: none, or it is the first of the two.
	Twin string `json:"twin,omitempty"`

	Client End `json:"client"`
	Server End `json:"server"`

	// Target is the address that the client sends to. It is that of the server, unless there is an address translation between.
	Target netip.Addr `json:"target"`

	// NICClock says that the devices of both ends can stamp all packets by one clock of their NIC.
	NICClock bool `json:"nic_clock,omitempty"`

	// Facts are what was read back from the kernel after the first packets.
	Facts map[string]string `json:"facts"`
}

// Translated reports whether the server is behind an address translation: only the client can open connections.
func (p Path) Translated() bool { return p.Target != p.Server.Addr }

// Built are paths, until Close.
type Built struct {
	Paths []Path

	sites []*site
	lock  *lock
}

// Build removes what a killed process has left, and makes paths. Packets have passed each of them in both directions: neighbours
// are known, and tables filled. A kind that cannot be built is in the second result. It fails if another process has paths (ErrBusy), if
// the options are wrong, or if ctx ends; then nothing is left.
func Build(ctx context.Context, o Options) (*Built, []result.Missing, error) {
	wants, err := o.wants()
	if err != nil {
		return nil, nil, err
	}
	l, err := acquire(ctx, o.Wait)
	if err != nil {
		return nil, nil, err
	}
	b, failed, err := build(ctx, wants, o)
	if err != nil {
		return nil, nil, errors.Join(err, l.release())
	}
	b.lock = l
	var missing []result.Missing
	for _, f := range failed {
		missing = append(missing, result.Missing{Kind: f.want.String(), Why: f.err.Error()})
	}
	return b, missing, nil
}

// wants are what Options ask for, checked.
func (o Options) wants() ([]Want, error) {
	wants := slices.Clone(o.Kinds)
	if o.Kinds == nil {
		for _, k := range kinds {
			wants = append(wants, Want{Kind: k.Name})
		}
	}
	names := map[string]bool{}
	for i, w := range wants {
		k, ok := find(w.Kind)
		if !ok {
			return nil, fmt.Errorf("path kind %q: there is none of that name", w.Kind)
		}
		if err := w.check(k); err != nil {
			return nil, err
		}
		if w.Name == "" {
			wants[i].Name = w.String()
		}
		for _, name := range wants[i].names() {
			if names[name] {
				return nil, fmt.Errorf("path %s: there are two of that name", name)
			}
			names[name] = true
		}
	}
	return wants, nil
}

// A failure is a kind that was not built.
type failure struct {
	want Want
	err  error
}

// build is Build with the lock held.
func build(ctx context.Context, wants []Want, o Options) (*Built, []failure, error) {
	if o.Dir == "" {
		o.Dir = Root
	}
	if _, err := sweep(o.Dir); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("path: %w", err)
	}
	if err := netnsdir.Share(); err != nil {
		return nil, nil, fmt.Errorf("path: %w", err)
	}
	b := &Built{}
	var failed []failure
	for _, w := range wants {
		var first string
		for _, name := range w.names() {
			s := newSite(len(b.sites), w, o)
			b.sites = append(b.sites, s)
			err := s.build(ctx)
			if ctx.Err() != nil {
				return nil, nil, errors.Join(ctx.Err(), b.close())
			}
			if err != nil {
				failed = append(failed, failure{w, errors.Join(err, s.close())})
				break
			}
			s.path.Name, s.path.Kind, s.path.Twin = name, w.Kind, first
			first = name
			b.Paths = append(b.Paths, s.path)
		}
	}
	return b, failed, nil
}

// Close removes the paths. It may be called again, which does nothing.
func (b *Built) Close() error {
	err := b.close()
	if b.lock != nil {
		err = errors.Join(err, b.lock.release())
		b.lock = nil
	}
	return err
}

func (b *Built) close() error {
	var errs []error
	for _, s := range slices.Backward(b.sites) {
		errs = append(errs, s.close())
	}
	b.sites = nil
	return errors.Join(errs...)
}
