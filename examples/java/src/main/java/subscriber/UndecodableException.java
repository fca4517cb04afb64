package subscriber;

/** A value that is not what the registry says it is. It stays so, however often it is read. */
final class UndecodableException extends Exception {
    UndecodableException(String message) {
        super(message);
    }

    UndecodableException(Exception cause) {
        super(cause);
    }
}
