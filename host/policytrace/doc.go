// Package policytrace says what a policy decided: as text for people and, with the
// same facts, as events for programs, which a Log writes in JSON.
package policytrace
