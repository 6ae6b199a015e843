from archive.command import main

if __name__ == "__main__":
    main()
