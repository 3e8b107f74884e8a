// Package statefile keeps what a process has to know after it was killed: a value as JSON, in a file that is replaced at once. It is not synchronised to the disk: what is kept so is of
// no use after the machine has started again.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Read decodes the file at path into v. It returns false, and leaves v as it is, if there is no such file, or path is empty. More than limit octets are an error, and so is anything behind
// the value.
func Read(path string, limit int64, v any) (bool, error) {
	if path == "" {
		return false, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // nothing is written to it
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return false, err
	}
	if int64(len(text)) > limit {
		return false, fmt.Errorf("%s: larger than %d octets", path, limit)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}

// Write makes v the content of the file at path, whose directory it makes if there is none. Whoever reads meanwhile has the old content or the new one. An empty path is no file. Of a
// file only one is to be written at a time.
func Write(path string, v any) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	next := path + ".new"
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(next, append(text, '\n'), 0o600)); err != nil {
		return err
	}
	return os.Rename(next, path)
}
