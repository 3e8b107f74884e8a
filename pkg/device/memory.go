package device

import (
	"fmt"

	"github.com/offloadd/offloadd/internal/statefile"
)

// A memory is a file of what has to be restored of functions that are quarantined: their owners are gone, and nobody else knows. Empty is none.
type memory string

// maxMemory bounds the size of the file in bytes: some kilobytes for each function of a large node.
const maxMemory = 16 << 20

func (m memory) read() (all []Function, err error) {
	if _, err := statefile.Read(string(m), maxMemory, &all); err != nil {
		return nil, fmt.Errorf("device memory: %w", err)
	}
	return all, nil
}

func (m memory) write(all []Function) error {
	if err := statefile.Write(string(m), all); err != nil {
		return fmt.Errorf("device memory: %w", err)
	}
	return nil
}
