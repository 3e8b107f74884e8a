package chassis

import "strings"

// Level is how loud an event is. The values are those of log/slog.
type Level int

// The levels.
const (
	LevelDebug Level = -4
	LevelInfo  Level = 0
	LevelWarn  Level = 4
	LevelError Level = 8
)

// Event is something worth telling a person. Message is a constant phrase.
type Event struct {
	Level   Level
	Message string
	Attrs   []Attr
}

// Attr is one fact of an event.
type Attr struct{ Key, Value string }

// event builds an Event from keys and values in turn.
func event(level Level, message string, attrs ...string) Event {
	e := Event{Level: level, Message: message}
	for i := 0; i+1 < len(attrs); i += 2 {
		e.Attrs = append(e.Attrs, Attr{attrs[i], attrs[i+1]})
	}
	return e
}

// String returns the event on one line: the message, then key=value for each fact.
func (e Event) String() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for _, a := range e.Attrs {
		b.WriteString(" " + a.Key + "=" + quote(a.Value))
	}
	return b.String()
}
