package ports

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
)

// A record is what the journal knows of a port.
type record struct {
	Phase phase   `json:"phase"`
	Boot  string  `json:"boot,omitzero"` // during which it was written; "": not known
	Netns netnsID `json:"netns"`
	Port  Port    `json:"port"`
}

// A phase says what a record promises.
type phase string

const (
	intended phase = "intended" // any of it may exist, and is to be removed unless the creation goes on
	made     phase = "made"     // all of it existed
	removing phase = "removing" // any of it may exist, and is to be removed
	gone     phase = "gone"     // nothing of it exists
)

// The journal is text: a line that names the format, and a line for each record, later ones of a port replacing earlier ones.
// A line is the CRC-32C of the rest in hexadecimal digits, a space, and the record in JSON.
const journalFormat = "offloadd ports 1\n"

// maxRecord bounds a line, in bytes; the largest valid Spec takes a third of it.
const maxRecord = 128 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line returns r as the journal has it.
func (r record) line() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	line := fmt.Appendf(nil, "%08x ", crc32.Checksum(text, castagnoli))
	line = append(append(line, text...), '\n')
	if len(line) > maxRecord {
		return nil, fmt.Errorf("record of %d bytes, more than %d", len(line), maxRecord)
	}
	return line, nil
}

// parseLine reads a line without its end.
func parseLine(line []byte) (record, error) {
	sum, text, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(sum) != 8 {
		return record{}, fmt.Errorf("no checksum")
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil {
		return record{}, fmt.Errorf("no checksum")
	}
	if got := crc32.Checksum(text, castagnoli); uint64(got) != want {
		return record{}, fmt.Errorf("checksum %08x, not %08x", got, want)
	}
	var r record
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&r); err != nil {
		return record{}, err
	}
	switch r.Phase {
	case gone:
		return r, r.Port.Spec.Key.Validate()
	case intended, made, removing:
		if r.Port.Kind == "" && r.Port.Spec.Kind == Veth { // from when there was nothing else
			r.Port.Kind = Veth
		}
		_, err := r.Port.Spec.Validate()
		return r, err
	default:
		return record{}, fmt.Errorf("unknown phase %q", r.Phase)
	}
}

// A flaw is a part of a journal that is not as it was written.
type flaw struct {
	Offset int // in bytes
	Err    error
}

// parseJournal returns the last record of each port that is not gone. What follows the last line's end is a write that was not
// finished, and no flaw: nothing was done on the strength of it.
func parseJournal(text []byte) (map[Key]record, []flaw) {
	records := map[Key]record{}
	var flaws []flaw
	offset := 0
	if first, ok := bytes.CutPrefix(text, []byte(journalFormat)); ok {
		offset, text = len(journalFormat), first
	} else if len(text) >= len(journalFormat) || !bytes.HasPrefix([]byte(journalFormat), text) {
		flaws = append(flaws, flaw{0, fmt.Errorf("the first line is not %q", journalFormat)})
	}
	for {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		if !ended {
			return records, flaws
		}
		r, err := parseLine(line)
		switch key := r.Port.Spec.Key; {
		case err != nil && offset == 0: // the damaged first line
		case err != nil:
			flaws = append(flaws, flaw{offset, err})
		case r.Phase == gone:
			delete(records, key)
		default:
			records[key] = r
		}
		offset += len(line) + 1
		text = rest
	}
}
