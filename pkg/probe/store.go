package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// Runs that are kept: so many, and so many octets.
const (
	maxKept   = 20
	maxOctets = 256 << 20
)

// runID is what a name of a run looks like: it is a file's.
var runID = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[0-9a-f]{4}$`)

// A Summary is what a list of runs says of one.
type Summary struct {
	ID             string
	Started, Ended time.Time
	Program        string
	Kernel         string
	Baseline       string
	Paths          []string
	Loads          []result.Load
	Sessions       int
	Octets         int64
}

// keep writes the run, and removes the oldest ones.
func (p *Prober) keep(id string, text []byte) error {
	if p.options.Dir == "" {
		return nil
	}
	p.keeping.Lock()
	defer p.keeping.Unlock()
	if err := p.write(id, text); err != nil {
		return fmt.Errorf("probe run %s: %w", id, err)
	}
	return p.forget()
}

// write makes the file at once: who reads it finds all of it, or none.
func (p *Prober) write(id string, text []byte) error {
	if err := os.MkdirAll(p.options.Dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(p.options.Dir, ".run-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), p.file(id))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func (p *Prober) file(id string) string { return filepath.Join(p.options.Dir, id+".json") }

// forget removes the oldest runs until the rest is within bounds, but never the last one, and what a killed process has half written.
func (p *Prober) forget() error {
	half, _ := filepath.Glob(filepath.Join(p.options.Dir, ".run-*")) // the pattern is one
	var errs []error
	for _, path := range half {
		errs = append(errs, os.Remove(path))
	}
	kept, err := p.kept()
	if err != nil {
		return err
	}
	octets := int64(0)
	for i, k := range slices.Backward(kept) {
		octets += k.octets
		if age := len(kept) - 1 - i; age >= maxKept || age > 0 && octets > maxOctets {
			errs = append(errs, os.Remove(p.file(k.id)))
		}
	}
	return errors.Join(errs...)
}

type kept struct {
	id     string
	octets int64
}

// kept are the runs, from the oldest to the latest: names begin with the time.
func (p *Prober) kept() ([]kept, error) {
	entries, err := os.ReadDir(p.options.Dir)
	if errors.Is(err, fs.ErrNotExist) || p.options.Dir == "" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("probe runs: %w", err)
	}
	var all []kept
	for _, e := range entries {
		name := e.Name()
		id := name[:len(name)-len(filepath.Ext(name))]
		info, err := e.Info()
		if filepath.Ext(name) != ".json" || !runID.MatchString(id) || err != nil {
			continue // not ours, or gone
		}
		all = append(all, kept{id, info.Size()})
	}
	return all, nil
}

// Runs returns what is kept, the latest first. A file that cannot be read has a Summary with an ID only.
func (p *Prober) Runs() ([]Summary, error) {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	files, err := p.kept()
	if err != nil {
		return nil, err
	}
	var all []Summary
	for _, k := range slices.Backward(files) {
		s := Summary{ID: k.id}
		if f, err := os.Open(p.file(k.id)); err == nil {
			if read, err := summarise(f); err == nil {
				s = read
			}
			_ = f.Close()
		}
		s.ID, s.Octets = k.id, k.octets
		all = append(all, s)
	}
	return all, nil
}

// summarise reads a run as far as its cases, which are most of it.
func summarise(r io.Reader) (Summary, error) {
	d := json.NewDecoder(r)
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return Summary{}, errors.Join(errors.New("not an object"), err)
	}
	head := bytes.NewBufferString("{")
	for {
		key, err := d.Token()
		if err != nil {
			return Summary{}, err
		}
		if key == "cases" || key == json.Delim('}') {
			break
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return Summary{}, err
		}
		if head.Len() > 1 {
			head.WriteByte(',')
		}
		fmt.Fprintf(head, "%q:%s", key, value)
	}
	head.WriteByte('}')
	var run result.Run
	if err := json.Unmarshal(head.Bytes(), &run); err != nil {
		return Summary{}, err
	}
	s := Summary{
		ID: run.ID, Started: run.Started, Ended: run.Ended, Program: run.Program, Kernel: run.Machine.Kernel, Baseline: run.Baseline,
		Loads: run.Parameters.Loads, Sessions: run.Parameters.Sessions,
	}
	for _, path := range run.Paths {
		s.Paths = append(s.Paths, path.Name)
	}
	return s, nil
}

// Text returns a run that is kept, in the form of report.JSON. Empty is the latest.
func (p *Prober) Text(id string) ([]byte, error) {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	if id == "" {
		all, err := p.kept()
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, reason.Errorf(reason.ProbeRunNotFound, "probe: no runs are kept")
		}
		id = all[len(all)-1].id
	}
	if !runID.MatchString(id) {
		return nil, reason.Errorf(reason.ProbeRunNotFound, "probe run %.64q: no run is called so", id)
	}
	text, err := os.ReadFile(p.file(id))
	if errors.Is(err, fs.ErrNotExist) || p.options.Dir == "" {
		return nil, reason.Errorf(reason.ProbeRunNotFound, "probe run %s: it is not kept, the last %d are", id, maxKept)
	}
	if err != nil {
		return nil, fmt.Errorf("probe run %s: %w", id, err)
	}
	return text, nil
}
