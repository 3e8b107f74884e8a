package ports

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/reason"
)

const (
	journalName = "ports.journal"
	// corruptName is what a journal with flaws is kept as.
	corruptName = "ports.journal.corrupt"
	// maxJournal bounds what is read of a journal, in bytes: every port with the largest record, twice, stays below.
	maxJournal = 2 * maxPorts * maxRecord
	// minCompact is the size in bytes below which a journal is not worth making smaller.
	minCompact = 1 << 20
)

// A journal keeps records on disk. Writers that come at the same time share one fsync.
type journal struct {
	dir  *os.File
	lock *os.File

	mu      sync.Mutex // guards what follows, and writing
	file    *os.File
	size    int64
	lines   map[Key][]byte
	written uint64 // records
	broken  error  // why what is in the file is not known

	syncing sync.Mutex // guards synced, and fsync
	synced  uint64     // records
}

// openJournal reads the journal in a directory, and makes it anew without what is superseded. Flaws are reported, and the file
// that has them is kept. Only one process at a time can have a journal open.
func openJournal(dir string) (j *journal, records map[Key]record, flaws []flaw, err error) {
	defer func() {
		if err != nil {
			err = reason.Errorf(reason.JournalFailed, "ports journal: %w", err)
			if j != nil {
				j.close()
			}
		}
	}()
	j = &journal{lines: map[Key][]byte{}}
	if j.dir, err = os.Open(dir); err != nil {
		return j, nil, nil, err
	}
	if j.lock, err = os.OpenFile(filepath.Join(dir, journalName+".lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return j, nil, nil, err
	}
	if err := unix.Flock(int(j.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return j, nil, nil, fmt.Errorf("lock %s, which another process has: %w", j.lock.Name(), err)
	}
	text, err := readJournal(j.path(journalName))
	if err != nil {
		return j, nil, nil, err
	}
	records, flaws = parseJournal(text)
	if len(flaws) > 0 {
		if err := os.Rename(j.path(journalName), j.path(corruptName)); err != nil {
			return j, nil, nil, err
		}
	}
	for k, r := range records {
		if j.lines[k], err = r.line(); err != nil {
			return j, nil, nil, err
		}
	}
	return j, records, flaws, j.rewrite()
}

func readJournal(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxJournal+1))
	if err == nil && len(text) > maxJournal {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxJournal)
	}
	return text, err
}

func (j *journal) path(name string) string { return filepath.Join(j.dir.Name(), name) }

func (j *journal) close() {
	for _, f := range []*os.File{j.file, j.lock, j.dir} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// write appends a record, and returns when it is on disk if durable, otherwise when it outlives this process.
func (j *journal) write(r record, durable bool) error {
	line, err := r.line()
	if err != nil {
		return reason.Errorf(reason.JournalFailed, "ports journal %s: %w", r.Port.Spec.Key, err)
	}
	seq, err := j.append(r, line)
	if err == nil && durable {
		err = j.sync(seq)
	}
	if err != nil {
		return reason.Errorf(reason.JournalFailed, "ports journal: %w", err)
	}
	return nil
}

func (j *journal) append(r record, line []byte) (seq uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	key := r.Port.Spec.Key
	before, known := j.lines[key]
	if r.Phase == gone {
		delete(j.lines, key)
	} else {
		j.lines[key] = line
	}
	defer func() {
		switch {
		case err == nil:
		case known:
			j.lines[key] = before
		default:
			delete(j.lines, key)
		}
	}()
	if j.broken != nil || j.size > minCompact && j.size > 4*j.least() {
		if err := j.rewrite(); err != nil {
			return 0, err
		}
		return j.written, nil
	}
	if _, err := j.file.Write(line); err != nil {
		// A part of the line may be in the file, where the next one would follow it.
		if cut := j.file.Truncate(j.size); cut != nil {
			j.broken = cut
		}
		return 0, err
	}
	j.size += int64(len(line))
	j.written++
	return j.written, nil
}

// least is the size of the file without what is superseded.
func (j *journal) least() int64 {
	n := int64(len(journalFormat))
	for _, line := range j.lines {
		n += int64(len(line))
	}
	return n
}

// sync returns when the first seq records are on disk.
func (j *journal) sync(seq uint64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if j.synced >= seq {
		return nil
	}
	j.mu.Lock()
	file, written := j.file, j.written
	j.mu.Unlock()
	if err := file.Sync(); err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.file == file {
			j.broken = err // fsync(2) says nothing about what it did not write the next time
			return err
		}
		written = j.written // meanwhile all was written anew
	}
	j.synced = written
	return nil
}

// rewrite replaces the file by one with what is valid only. The caller holds mu, or is the only one.
func (j *journal) rewrite() (err error) {
	next := j.path(journalName + ".new")
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	text := []byte(journalFormat)
	keys := make([]Key, 0, len(j.lines))
	for k := range j.lines {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, Key.Compare)
	for _, k := range keys {
		text = append(text, j.lines[k]...)
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(next, j.path(journalName)); err != nil {
		return err
	}
	if err := j.dir.Sync(); err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.size, j.broken = f, int64(len(text)), nil
	j.written++
	return nil
}
