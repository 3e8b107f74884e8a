package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A memory is a file of what has to be restored of functions that are quarantined: their owners are gone, and nobody else knows.
type memory string

// maxMemory bounds the size of the file in bytes: some kilobytes for each function of a large node.
const maxMemory = 16 << 20

func (m memory) read() ([]Function, error) {
	if m == "" {
		return nil, nil
	}
	f, err := os.Open(string(m))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("device memory: %w", err)
	}
	defer func() { _ = f.Close() }()
	var all []Function
	if err := json.NewDecoder(io.LimitReader(f, maxMemory)).Decode(&all); err != nil {
		return nil, fmt.Errorf("device memory %s: %w", m, err)
	}
	return all, nil
}

// write replaces the file at once.
func (m memory) write(all []Function) error {
	if m == "" {
		return nil
	}
	b, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("device memory: %w", err)
	}
	next := string(m) + ".new"
	if err := errors.Join(os.MkdirAll(filepath.Dir(next), 0o750), os.WriteFile(next, append(b, '\n'), 0o600)); err != nil {
		return fmt.Errorf("device memory: %w", err)
	}
	if err := os.Rename(next, string(m)); err != nil {
		return fmt.Errorf("device memory: %w", err)
	}
	return nil
}
