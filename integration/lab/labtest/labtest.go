// Package labtest starts labs for tests: a lab that ends with its test, the daemons' logs in a failed
// test's output, and calls that end the test on error.
package labtest

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// A Lab is a lab whose errors end its test.
type Lab struct {
	*lab.Lab
	T testing.TB
}

// Start starts a lab that is closed when the test ends. If a node needs offloadd and opts does not say where
// it is, the one of Offloadd is taken.
func Start(t testing.TB, opts lab.Options) *Lab {
	t.Helper()
	for _, n := range opts.Nodes {
		if n.Agent == lab.Offloadd && opts.OffloaddPath == "" {
			opts.OffloaddPath = Offloadd(t)
		}
	}
	l, err := lab.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of lab %s:\n%s\n%s", l.Name, l.Tails(30), l.State(context.Background())) // t's own context has ended
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Lab{Lab: l, T: t}
}

// In returns the same lab for a subtest.
func (l *Lab) In(t testing.TB) *Lab { return &Lab{Lab: l.Lab, T: t} }

// NB runs ovn-nbctl commands, one per line, as a transaction.
func (l *Lab) NB(script string) string {
	l.T.Helper()
	return l.must(l.Lab.NB(l.T.Context(), script))
}

// SB runs ovn-sbctl commands, one per line, as a transaction.
func (l *Lab) SB(script string) string {
	l.T.Helper()
	return l.must(l.Lab.SB(l.T.Context(), script))
}

// Sync waits until northd and every chassis have caught up.
func (l *Lab) Sync() {
	l.T.Helper()
	l.Check(l.Lab.Sync(l.T.Context()))
}

// AddPod makes a pod on a node.
func (l *Lab) AddPod(node string, c lab.PodConfig) *lab.Pod {
	l.T.Helper()
	p, err := l.Node(node).AddPod(l.T.Context(), c)
	l.Check(err)
	return p
}

// WaitInstalled waits for ovn-installed on each pod.
func (l *Lab) WaitInstalled(pods ...*lab.Pod) {
	l.T.Helper()
	for _, p := range pods {
		_, err := p.WaitInstalled(l.T.Context())
		l.Check(err)
	}
}

// Eventually waits until cond holds, and fails the test if it does not within the time, or longer on a slow machine
// (lab.Patient).
func (l *Lab) Eventually(within time.Duration, what string, cond func() bool) {
	l.T.Helper()
	within = lab.Patient(within)
	ctx, cancel := context.WithTimeout(l.T.Context(), within)
	defer cancel()
	if err := lab.Until(ctx, func() (bool, error) { return cond(), nil }); err != nil {
		l.T.Fatalf("%s: not within %v", what, within)
	}
}

// Check ends the test if err is not nil.
func (l *Lab) Check(err error) {
	l.T.Helper()
	if err != nil {
		l.T.Fatal(err)
	}
}

func (l *Lab) must(out string, err error) string {
	l.T.Helper()
	l.Check(err)
	return out
}

// Offloadd returns the path of the daemon's binary: $OFFLOADD if it is set, or one built from this source tree.
func Offloadd(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("OFFLOADD"); path != "" {
		return path
	}
	if guest := os.Getenv("OFFLOADD_VM"); guest != "" {
		t.Fatalf("the daemon is not built in a guest (%s): set OFFLOADD to the path of its binary", guest)
	}
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// built compiles the daemon once per test binary, into go's cache directory under a name of this source tree's own.
// Test binaries may do that at the same time, and while daemons run from what an earlier one made.
var built = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOCACHE", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	cache, mod, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	tree := fnv.New64a()
	_, _ = tree.Write([]byte(mod)) // hashes do not fail
	path := filepath.Join(cache, fmt.Sprintf("offloadd-%x", tree.Sum64()))
	fresh := fmt.Sprintf("%s-%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-o", fresh, "./cmd/offloadd")
	cmd.Dir = filepath.Dir(mod)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/offloadd: %w\n%s", err, out)
	}
	return path, os.Rename(fresh, path)
})
