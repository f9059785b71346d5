package check

import "fmt"

// Outcomes is K7: a value whose every Put said that nothing was applied is never
// read.
func Outcomes(history []Op) []Violation {
	var violations []Violation
	for _, ops := range byKey(history) {
		refused := map[string]Op{}
		for _, o := range ops {
			if o.Kind == Put && o.Outcome == NotApplied {
				refused[string(o.Value)] = o
			}
		}
		for _, o := range ops {
			if o.Kind == Put && o.Outcome != NotApplied {
				delete(refused, string(o.Value))
			}
		}
		for _, o := range ops {
			if o.Kind != Get {
				continue
			}
			for _, value := range o.shows() {
				if put, ok := refused[string(value)]; ok {
					violations = append(violations, Violation{"K7", o, fmt.Sprintf("this was not applied: %v", put)})
				}
			}
		}
	}
	return violations
}
