package report

import (
	"encoding/json"
	"fmt"
	"reflect"
	"unicode"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Limits of what Read takes. A run of twenty paths, ten loads and twenty sessions is some ten megabytes.
const (
	MaxOctets   = 256 << 20
	maxPaths    = 256
	maxCases    = 4096
	maxSessions = 10_000
	maxBlocks   = 100_000
	maxPackets  = 1000 // of a life
	maxStarts   = 100_000
	maxText     = 2 << 20 // of a string
)

// JSON returns a run in the form that Read reads.
func JSON(run *result.Run) ([]byte, error) {
	text, err := json.MarshalIndent(run, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("report write run %s: %w", run.ID, err)
	}
	return append(text, '\n'), nil
}

// Read reads what JSON has written, now or by an older program. It refuses newer forms, sizes beyond any use, and texts that a terminal would
// obey.
func Read(text []byte) (*result.Run, error) {
	if len(text) > MaxOctets {
		return nil, fmt.Errorf("report read run: %d octets, at most %d are taken", len(text), MaxOctets)
	}
	var form struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &form); err != nil {
		return nil, fmt.Errorf("report read run: %w", err)
	}
	switch {
	case form.Version < 1:
		return nil, fmt.Errorf("report read run: this is no run of a probe: it has no version")
	case form.Version > result.Version:
		return nil, fmt.Errorf("report read run: it was written by a newer program: form %d, this one reads up to %d", form.Version, result.Version)
	}
	run := &result.Run{}
	if err := json.Unmarshal(text, run); err != nil {
		return nil, fmt.Errorf("report read run: %w", err)
	}
	if err := check(run); err != nil {
		return nil, fmt.Errorf("report read run %.40q: %w", run.ID, err)
	}
	return run, nil
}

func check(run *result.Run) error {
	if len(run.Paths) > maxPaths || len(run.Missing) > maxPaths {
		return fmt.Errorf("%d paths and %d missing ones, at most %d are taken", len(run.Paths), len(run.Missing), maxPaths)
	}
	if len(run.Cases) > maxCases {
		return fmt.Errorf("%d cases, at most %d are taken", len(run.Cases), maxCases)
	}
	paths := map[string]bool{}
	for _, p := range run.Paths {
		if paths[p.Name] {
			return fmt.Errorf("path %s is there twice", p.Name)
		}
		paths[p.Name] = true
	}
	if !paths[run.Baseline] {
		return fmt.Errorf("the baseline %q is not a path", run.Baseline)
	}
	for i, c := range run.Cases {
		if !paths[c.Path] {
			return fmt.Errorf("case %d is of %q, which is not a path", i, c.Path)
		}
		if len(c.Sessions) > maxSessions {
			return fmt.Errorf("case %d has %d sessions, at most %d are taken", i, len(c.Sessions), maxSessions)
		}
		for j, s := range c.Sessions {
			if len(s.Blocks) > maxBlocks {
				return fmt.Errorf("case %d, session %d has %d blocks, at most %d are taken", i, j, len(s.Blocks), maxBlocks)
			}
		}
	}
	if p := run.Ports; p != nil {
		if len(p.Ways) > maxPaths || len(p.Lives) > maxPaths {
			return fmt.Errorf("%d ways and %d lives, at most %d are taken", len(p.Ways), len(p.Lives), maxPaths)
		}
		if len(p.BreakEvens) > 2*maxPaths {
			return fmt.Errorf("%d break-evens, at most %d are taken", len(p.BreakEvens), 2*maxPaths)
		}
		for i := range p.Ways {
			if len(p.Ways[i].Connections) > maxSessions {
				return fmt.Errorf("way %d has %d connections, at most %d are taken", i, len(p.Ways[i].Connections), maxSessions)
			}
		}
		for i, l := range p.Lives {
			if len(l.Trials) > maxSessions || len(l.Took) > maxPackets {
				return fmt.Errorf("life %d has %d trials and %d packets, at most %d and %d are taken", i, len(l.Trials), len(l.Took), maxSessions, maxPackets)
			}
			for _, t := range l.Trials {
				if len(t.Took) > maxPackets || len(t.Sent) > maxPackets || len(t.CPU) > maxPackets {
					return fmt.Errorf("a trial of life %d has %d packets, at most %d are taken", i, len(t.Took), maxPackets)
				}
			}
		}
	}
	if err := checkStarts(run.Starts, paths); err != nil {
		return err
	}
	return checkTexts(reflect.ValueOf(run))
}

func checkStarts(s *result.Starts, paths map[string]bool) error {
	if s == nil {
		return nil
	}
	if len(s.Cases) > maxPaths || len(s.Ports) > maxCases {
		return fmt.Errorf("starts have %d cases and %d ports, at most %d and %d are taken", len(s.Cases), len(s.Ports), maxPaths, maxCases)
	}
	for i, c := range s.Cases {
		if !paths[c.Path] {
			return fmt.Errorf("case %d of starts is of %q, which is not a path", i, c.Path)
		}
		starts := 0
		for _, b := range c.Batches {
			starts += len(b.Starts)
		}
		if starts > maxStarts || len(c.Batches) > maxStarts || len(c.Steps) > maxPaths || len(c.Never) > maxPaths {
			return fmt.Errorf("case %d of starts has %d batches with %d starts, at most %d are taken", i, len(c.Batches), starts, maxStarts)
		}
	}
	return nil
}

// checkTexts looks at every string: a name is printed, and control characters would reach the terminal.
func checkTexts(v reflect.Value) error {
	switch v.Kind() { //nolint:exhaustive // the other kinds hold no strings
	case reflect.Pointer:
		if !v.IsNil() {
			return checkTexts(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				if err := checkTexts(v.Field(i)); err != nil {
					return err
				}
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := checkTexts(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := checkTexts(it.Key()); err != nil {
				return err
			}
			if err := checkTexts(it.Value()); err != nil {
				return err
			}
		}
	case reflect.String:
		s := v.String()
		if len(s) > maxText {
			return fmt.Errorf("a text of %d octets, at most %d are taken", len(s), maxText)
		}
		for _, r := range s {
			if !unicode.IsPrint(r) {
				return fmt.Errorf("the text %.40q has a character that is not printed", s)
			}
		}
	}
	return nil
}
