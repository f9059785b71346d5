package kvstore

// Defences are for the simulations to switch off.
var Defences = &defences
