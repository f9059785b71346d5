// Package archtest holds the tests that guard the shape of the module: who may
// import whom, which calls may reach the world outside, and that every
// dependency is explained. It has no code of its own.
package archtest
