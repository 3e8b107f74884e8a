package lab

import (
	"fmt"
	"strings"
)

// parseScript turns the lines of a ctl script into arguments, with "--" between commands.
func parseScript(script string) ([]string, error) {
	var args []string
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words, err := Words(line)
		if err != nil {
			return nil, fmt.Errorf("lab script line %d: %w: %s", i+1, err, line)
		}
		if len(args) > 0 {
			args = append(args, "--")
		}
		args = append(args, words...)
	}
	return args, nil
}

// Words splits as a shell does: blanks separate words; '...' is literal; in "..." and outside of
// quotes a backslash makes the next character literal. Nothing is expanded.
func Words(line string) ([]string, error) {
	var (
		words []string
		word  strings.Builder
		in    bool // inside a word, possibly an empty quoted one
		quote rune
		esc   bool
	)
	for _, r := range line {
		switch {
		case esc:
			word.WriteRune(r)
			esc = false
		case r == '\\' && quote != '\'':
			in, esc = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ' || r == '\t':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || esc {
		return nil, fmt.Errorf("unfinished quotation")
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}
