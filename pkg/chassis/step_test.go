package chassis

import (
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
)

// Each input is a story: commands of model.command and driver.do. What a plan does is printed turn by turn, events
// with !, inserts with +, changes with ~, deletes with -.
func TestSteps(t *testing.T) {
	golden.Run(t, "testdata/steps.txt", func(in string) string {
		d := newDriver(newModel())
		for line := range strings.SplitSeq(in, "\n") {
			if err := d.do(line); err != nil {
				return line + ": " + d.m.text(err.Error())
			}
		}
		return strings.TrimRight(d.output.String(), "\n")
	})
}
